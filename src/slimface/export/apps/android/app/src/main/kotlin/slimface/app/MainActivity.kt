package slimface.app

import android.Manifest
import android.content.pm.PackageManager
import android.os.Bundle
import android.os.SystemClock
import android.widget.Button
import android.widget.TextView
import androidx.activity.result.contract.ActivityResultContracts
import androidx.appcompat.app.AppCompatActivity
import androidx.camera.core.CameraSelector
import androidx.camera.core.ImageAnalysis
import androidx.camera.core.ImageProxy
import androidx.camera.core.Preview
import androidx.camera.core.resolutionselector.AspectRatioStrategy
import androidx.camera.core.resolutionselector.ResolutionSelector
import androidx.camera.lifecycle.ProcessCameraProvider
import androidx.camera.view.PreviewView
import androidx.core.content.ContextCompat
import java.util.concurrent.ExecutorService
import java.util.concurrent.Executors
import slimface.SlimfaceException

/** The camera's picture, with a box around each face. */
class MainActivity : AppCompatActivity() {
    private lateinit var faces: FacesView
    private lateinit var said: TextView
    private lateinit var time: TextView

    /** Everything about the detector happens in this thread, one thing after the other. */
    private val work: ExecutorService = Executors.newSingleThreadExecutor()
    private var detector: FaceDetector? = null
    private var camera = CameraSelector.DEFAULT_FRONT_CAMERA

    private val asked = registerForActivityResult(ActivityResultContracts.RequestPermission()) { isAllowed ->
        if (isAllowed) start() else said.setText(R.string.needs_camera)
    }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.main)
        faces = findViewById(R.id.faces)
        said = findViewById(R.id.said)
        time = findViewById(R.id.time)
        findViewById<Button>(R.id.turn).setOnClickListener { turn() }
        work.execute { orSay { detector = FaceDetector.fromAssets(applicationContext) } }
        val permission = ContextCompat.checkSelfPermission(this, Manifest.permission.CAMERA)
        if (permission == PackageManager.PERMISSION_GRANTED) start() else asked.launch(Manifest.permission.CAMERA)
    }

    override fun onDestroy() {
        super.onDestroy()
        work.execute { detector?.close() }
        work.shutdown()
    }

    private fun turn() {
        val isFront = camera == CameraSelector.DEFAULT_FRONT_CAMERA
        camera = if (isFront) CameraSelector.DEFAULT_BACK_CAMERA else CameraSelector.DEFAULT_FRONT_CAMERA
        start()
    }

    private fun start() {
        val coming = ProcessCameraProvider.getInstance(this)
        coming.addListener({ bind(coming.get()) }, ContextCompat.getMainExecutor(this))
    }

    private fun bind(provider: ProcessCameraProvider) {
        // What is shown and what is looked at must have one shape, or boxes would lie beside faces.
        val shape = ResolutionSelector.Builder()
            .setAspectRatioStrategy(AspectRatioStrategy.RATIO_4_3_FALLBACK_AUTO_STRATEGY)
            .build()
        val preview = Preview.Builder().setResolutionSelector(shape).build()
        preview.surfaceProvider = findViewById<PreviewView>(R.id.preview).surfaceProvider
        val analysis = ImageAnalysis.Builder()
            .setResolutionSelector(shape)
            .setBackpressureStrategy(ImageAnalysis.STRATEGY_KEEP_ONLY_LATEST)
            .setOutputImageFormat(ImageAnalysis.OUTPUT_IMAGE_FORMAT_RGBA_8888)
            .setOutputImageRotationEnabled(true)
            .build()
        val isMirrored = camera == CameraSelector.DEFAULT_FRONT_CAMERA
        analysis.setAnalyzer(work) { frame -> frame.use { look(it, isMirrored) } }
        provider.unbindAll()
        try {
            provider.bindToLifecycle(this, camera, preview, analysis)
        } catch (_: IllegalArgumentException) {
            said.setText(R.string.no_camera)
        }
    }

    private fun look(frame: ImageProxy, isMirrored: Boolean) = orSay {
        val open = detector ?: return@orSay
        val plane = frame.planes[0]
        val start = SystemClock.elapsedRealtime()
        val found = open.detect(plane.buffer, frame.width, frame.height, plane.rowStride)
        val ms = (SystemClock.elapsedRealtime() - start).toInt()
        val (width, height) = frame.width to frame.height
        runOnUiThread {
            faces.show(found, width, height, isMirrored)
            time.text = getString(R.string.ms, ms)
            // A screen reader speaks whenever this changes: not with every picture.
            val text = resources.getQuantityString(R.plurals.faces, found.size, found.size)
            if (said.text.toString() != text) said.text = text
        }
    }

    /** Do something, and say on the screen what went wrong. */
    private fun orSay(act: () -> Unit) {
        try {
            act()
        } catch (error: SlimfaceException) {
            runOnUiThread { said.text = error.message }
        }
    }
}
