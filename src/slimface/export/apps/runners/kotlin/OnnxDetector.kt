// A detector run by ONNX Runtime for Java, on Android (onnxruntime-android) and elsewhere
// (com.microsoft.onnxruntime:onnxruntime).
package slimface

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtSession
import java.nio.FloatBuffer

/**
 * Faces in pictures. Call `close` when it is no longer needed; `detect` from one thread at a time.
 *
 * @param spec What spec.json of the bundle says.
 * @param model The bytes of its ONNX file.
 * @param threads Within an operator; 0 leaves it to the runtime.
 */
class OnnxDetector(val spec: Spec, model: ByteArray, threads: Int = 0) : AutoCloseable {
    private val environment = OrtEnvironment.getEnvironment()
    private val session: OrtSession = try {
        OrtSession.SessionOptions().use { options ->
            if (threads > 0) options.setIntraOpNumThreads(threads)
            environment.createSession(model, options)
        }
    } catch (error: OrtException) {
        throw SlimfaceException("The model cannot be opened: ${error.message}. Copy the bundle again.", error)
    }

    /** Return the faces of a picture, best first, in its pixels; `longest` makes it faster and finds fewer. */
    fun detect(picture: Picture, longest: Int? = null, score: Double = spec.scoreFloor): List<Face> {
        val input = prepare(spec, picture, longest)
        val shape = longArrayOf(1, 3, input.height.toLong(), input.width.toLong())
        try {
            OnnxTensor.createTensor(environment, FloatBuffer.wrap(input.images), shape).use { images ->
                session.run(mapOf(session.inputNames.first() to images)).use { given ->
                    val points = if (spec.landmarks > 0) floats(given, "landmarks") else null
                    val outputs = Outputs(floats(given, spec.valuesName), floats(given, spec.boxesName), points)
                    return read(spec, outputs, input, score)
                }
            }
        } catch (error: OrtException) {
            throw SlimfaceException("The network does not run on ${input.width} x ${input.height}: ${error.message}.", error)
        }
    }

    private fun floats(given: OrtSession.Result, name: String): FloatArray {
        val tensor = given.get(name).orElse(null) as? OnnxTensor
            ?: throw SlimfaceException("The network has no output '$name'. Copy the bundle again.")
        val buffer = tensor.floatBuffer
        return FloatArray(buffer.remaining()).also { buffer.get(it) }
    }

    override fun close() = session.close()
}
