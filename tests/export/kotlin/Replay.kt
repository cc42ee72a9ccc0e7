// A cascade whose networks are played from a tape: Replay SPEC PICTURE.ppm TAPE; prints a face a line.
package slimface

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs

/** Of each call: net, count of its input, the input, then counts and values of logits, offsets, landmarks. */
class Tape(file: File) {
    private val floats = ByteBuffer.wrap(file.readBytes()).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()

    private fun next(): FloatArray = FloatArray(floats.get().toInt()).also { floats.get(it) }

    fun answer(net: Int, images: FloatArray): Outputs {
        check(floats.get().toInt() == net) { "another net was asked" }
        val wanted = next()
        check(wanted.size == images.size) { "net $net is shown ${images.size} values, not ${wanted.size}" }
        val far = images.indices.maxOf { abs(images[it] - wanted[it]) }
        check(far <= 1e-6) { "net $net is shown other pixels, $far apart" }
        val (logits, offsets, landmarks) = listOf(next(), next(), next())
        return Outputs(logits, offsets, landmarks.takeIf { it.isNotEmpty() })
    }

    val isOver: Boolean get() = !floats.hasRemaining()
}

object Replay {
    @JvmStatic
    fun main(words: Array<String>) {
        val (spec, picture, place) = words.map { File(it) }
        val tape = Tape(place)
        val cascade = Cascade(CascadeSpec.parse(spec.readText())) { net, images, _ -> tape.answer(net, images) }
        for (face in cascade.detect(readPpm(picture))) {
            println((face.box + face.score + (face.landmarks ?: FloatArray(0))).joinToString(" "))
        }
        check(tape.isOver) { "not all that the nets were asked was asked again" }
    }
}
