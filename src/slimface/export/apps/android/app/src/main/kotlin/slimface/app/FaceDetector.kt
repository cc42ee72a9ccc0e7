package slimface.app

import android.content.Context
import android.graphics.Bitmap
import java.io.File
import java.nio.ByteBuffer
import slimface.Face
import slimface.ModelStore
import slimface.OnnxDetector
import slimface.Picture
import slimface.SlimfaceException
import slimface.Spec

/**
 * Faces in pictures of Android, from the model in the assets of an app: load, infer, boxes out.
 *
 *     FaceDetector.fromAssets(context).use { detector -> val faces = detector.detect(bitmap) }
 *
 * Opening and detecting take time: never on the main thread, and from one thread at a time.
 * Whatever is wrong is a `SlimfaceException` that says what to do.
 */
class FaceDetector private constructor(private val detector: OnnxDetector) : AutoCloseable {
    val spec: Spec get() = detector.spec

    private var bytes = ByteArray(0)

    /** Return the faces of a picture, best first, in its pixels; `longest` makes it faster and finds fewer. */
    fun detect(bitmap: Bitmap, longest: Int? = null): List<Face> {
        // Bitmaps in the memory of the graphics chip, or of 16 bits, have no such bytes.
        val plain = if (bitmap.config == Bitmap.Config.ARGB_8888) bitmap else {
            bitmap.copy(Bitmap.Config.ARGB_8888, false)
                ?: throw SlimfaceException("The bitmap has no pixels that can be read. Decode it again.")
        }
        val pixels = bytes(plain.rowBytes * plain.height)
        // In memory, ARGB_8888 is red, green, blue, alpha.
        plain.copyPixelsToBuffer(ByteBuffer.wrap(pixels))
        return detector.detect(Picture(pixels, plain.width, plain.height, 4, plain.rowBytes), longest)
    }

    /** The same for a plane of a camera's picture in RGBA_8888. */
    fun detect(rgba: ByteBuffer, width: Int, height: Int, rowBytes: Int, longest: Int? = null): List<Face> {
        val pixels = bytes(rgba.remaining())
        rgba.get(pixels, 0, rgba.remaining())
        return detector.detect(Picture(pixels, width, height, 4, rowBytes), longest)
    }

    override fun close() = detector.close()

    /** Memory that is used again for the next picture. */
    private fun bytes(count: Int): ByteArray {
        if (bytes.size < count) bytes = ByteArray(count)
        return bytes
    }

    companion object {
        private const val ASSETS = "slimface"

        /** Open the model in the assets of an app. */
        fun fromAssets(context: Context, threads: Int = 0): FaceDetector {
            val store = ModelStore(File(context.filesDir, ASSETS)) { context.assets.open("$ASSETS/$it") }
            val spec = Spec.parse(store.text("spec.json"))
            return FaceDetector(OnnxDetector(spec, store.file(spec.file.path).readBytes(), threads))
        }
    }
}
