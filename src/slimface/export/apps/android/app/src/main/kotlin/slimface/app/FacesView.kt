package slimface.app

import android.content.Context
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Matrix
import android.graphics.Paint
import android.util.AttributeSet
import android.view.View
import kotlin.math.max
import slimface.Face

/** Boxes and landmarks over a camera preview that fills this view and is cut at its borders. */
class FacesView(context: Context, attributes: AttributeSet?) : View(context, attributes) {
    private val density = resources.displayMetrics.density
    private val edge = stroke(Color.rgb(16, 24, 20), 5f)
    private val line = stroke(Color.rgb(70, 235, 110), 3f)
    private val point = Paint(Paint.ANTI_ALIAS_FLAG).apply { color = Color.rgb(255, 196, 0) }
    private val place = Matrix()
    private var faces = emptyList<Face>()
    private var pictureWidth = 1
    private var pictureHeight = 1
    private var isMirrored = false

    private fun stroke(colour: Int, width: Float) = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        color = colour
        style = Paint.Style.STROKE
        strokeWidth = width * density
    }

    /** Show faces in pixels of a picture of a size; front cameras are shown as mirrors. */
    fun show(faces: List<Face>, width: Int, height: Int, isMirrored: Boolean) {
        this.faces = faces
        this.isMirrored = isMirrored
        pictureWidth = width
        pictureHeight = height
        invalidate()
    }

    override fun onDraw(canvas: Canvas) {
        super.onDraw(canvas)
        val scale = max(width.toFloat() / pictureWidth, height.toFloat() / pictureHeight)
        place.setTranslate(-pictureWidth / 2f, -pictureHeight / 2f)
        place.postScale(if (isMirrored) -scale else scale, scale)
        place.postTranslate(width / 2f, height / 2f)
        for (face in faces) {
            val box = face.box.copyOf().also { place.mapPoints(it) }
            val (left, right) = minOf(box[0], box[2]) to maxOf(box[0], box[2])
            for (paint in listOf(edge, line)) canvas.drawRect(left, box[1], right, box[3], paint)
            val points = face.landmarks?.copyOf()?.also { place.mapPoints(it) } ?: continue
            for (i in points.indices step 2) canvas.drawCircle(points[i], points[i + 1], 3 * density, point)
        }
    }
}
