// Proves preprocessing and decoding on the golden picture of a bundle, on any JVM, without a runtime:
//
//   kotlinc Json.kt Slimface.kt Golden.kt -include-runtime -d golden.jar
//   java -jar golden.jar BUNDLE [FORMAT]
package slimface

import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import kotlin.system.exitProcess

class Golden(private val folder: File) {
    private val told = Json.parse(File(folder, "golden.json").readText(), "golden.json")
    private val picture = readPpm(File(folder, "picture.ppm"))
    private var wrong = 0

    fun prove(spec: Spec): Boolean {
        val input = prepare(spec, picture)
        val small = prepare(spec, picture, told["resized_longest_px"].int())
        for ((name, fed) in listOf("images" to input, "resized" to small)) {
            // One byte is what resizing may round to the other side.
            val allowed = if (fed.ratioX == 1f && fed.ratioY == 1f) 1e-4 else 1.01 * spec.scale
            judge(name, apart(fed.images, tensor(name)), allowed)
        }
        val points = if (spec.landmarks > 0) tensor("landmarks") else null
        judgeFaces(read(spec, Outputs(tensor(spec.valuesName), tensor(spec.boxesName), points), input))
        return wrong == 0
    }

    private fun judgeFaces(faces: List<Face>) {
        val wanted = told["faces"].list()
        judge("number of faces", abs(faces.size - wanted.size).toDouble(), 0.0)
        var far = 0.0
        var score = 0.0
        for (golden in wanted) {
            val numbers = (golden["box"].list() + pointsOf(golden)).map { it.number() }
            // The nearest is its partner; scores that are equal but for rounding come in any order.
            val (gap, best) = faces.map { apart(it, numbers) to it }.minByOrNull { it.first } ?: continue
            far = maxOf(far, gap)
            score = maxOf(score, abs(best.score - golden["score"].number()))
        }
        judge("corners and landmarks", far, told["tolerance"]["box_px"].number())
        judge("scores", score, told["tolerance"]["score"].number())
    }

    private fun pointsOf(golden: Json): List<Json> =
        if (golden.has("landmarks")) golden["landmarks"].list().flatMap { it.list() } else emptyList()

    private fun apart(face: Face, numbers: List<Double>): Double {
        val own = face.box + (face.landmarks ?: FloatArray(0))
        return if (own.size != numbers.size) Double.POSITIVE_INFINITY else own.indices.maxOf { abs(own[it] - numbers[it]) }
    }

    private fun apart(one: FloatArray, other: FloatArray): Double =
        if (one.size != other.size) Double.POSITIVE_INFINITY else one.indices.maxOf { abs(one[it].toDouble() - other[it]) }

    private fun tensor(name: String): FloatArray {
        val bytes = ByteBuffer.wrap(File(folder, "$name.f32").readBytes()).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        return FloatArray(bytes.remaining()).also { bytes.get(it) }
    }

    private fun judge(what: String, far: Double, allowed: Double) {
        val isRight = far <= allowed
        if (!isRight) wrong++
        println("$what: %.2g apart, %.2g allowed: ${if (isRight) "passed" else "FAILED"}".format(far, allowed))
    }
}

/** Read a PPM (P6, 8 bits): the one kind of picture that needs no library. */
fun readPpm(file: File): Picture {
    val bytes = file.readBytes()
    val header = Regex("""^P6\s+(\d{1,5})\s+(\d{1,5})\s+255\s""").find(String(bytes.copyOf(64), Charsets.ISO_8859_1))
        ?: throw SlimfaceException("$file is no PPM of 8 bits. Convert it: convert in.jpg out.ppm")
    val (width, height) = header.destructured
    return Picture(bytes.copyOfRange(header.value.length, bytes.size), width.toInt(), height.toInt())
}

fun main(words: Array<String>) {
    try {
        if (words.isEmpty()) throw SlimfaceException("Usage: golden BUNDLE [FORMAT]")
        val spec = Spec.parse(File(words[0], "spec.json").readText(), words.getOrElse(1) { "onnx" })
        if (!Golden(File(words[0], spec.file.golden)).prove(spec)) exitProcess(1)
    } catch (error: SlimfaceException) {
        fail(error)
    } catch (error: IOException) {
        fail(error)
    }
}

private fun fail(error: Exception): Nothing {
    System.err.println("Error: ${error.message}")
    exitProcess(1)
}
