// Faces in pictures, from spec.json of a slimface bundle: plain Kotlin, no library. A runtime computes
// what lies between:
//
//   val spec = Spec.parse(text)
//   val input = prepare(spec, picture)               // (1, 3, height, width)
//   ... run the network ...
//   val faces = read(spec, outputs, input)           // pixels of the picture
package slimface

import kotlin.math.exp
import kotlin.math.floor
import kotlin.math.ln
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

/** What is wrong with a bundle, a model or a picture, and what to do now. */
class SlimfaceException(message: String, cause: Throwable? = null) : Exception(message, cause)

/** 8-bit pixels that start with red, green, blue; rows may be padded, as cameras do. */
class Picture(
    val bytes: ByteArray,
    val width: Int,
    val height: Int,
    val pixelBytes: Int = 3,
    val rowBytes: Int = width * pixelBytes,
) {
    init {
        val needed = (height - 1L) * rowBytes + width.toLong() * pixelBytes
        if (width < 1 || height < 1 || pixelBytes < 3 || bytes.size < needed) {
            throw SlimfaceException("A picture of $width x $height has $needed bytes or more, not ${bytes.size}. Give a whole one.")
        }
    }
}

/** What the network is fed with: (1, 3, height, width), and its pixels for one of the picture. */
class Input(val images: FloatArray, val height: Int, val width: Int, val ratioX: Float, val ratioY: Float)

/** What it answers: of each anchor a logit (or score), four offsets (or corners), and points. */
class Outputs(val values: FloatArray, val boxes: FloatArray, val landmarks: FloatArray?)

/** A face in pixels of the picture: x1, y1, x2, y2; landmarks are x, y, x, y, ... */
class Face(val box: FloatArray, val score: Float, val landmarks: FloatArray?)

class Level(val stride: Int, val step: Int, val sizes: FloatArray)

/** What spec.json says. */
class Spec(
    val name: String,
    val mean: FloatArray,
    val scale: Float,
    val isBgr: Boolean,
    val multipleOf: Int,
    val levels: List<Level>,
    val centre: Double,
    val heightPerWidth: Double,
    val isClipped: Boolean,
    val centreVariance: Double,
    val sizeVariance: Double,
    val scoreFloor: Double,
    val overlap: Double,
    val preNms: Int,
    val cap: Int,
    val landmarks: Int,
    val file: ModelFile,
) {
    /** The file of one format in the bundle. */
    class ModelFile(val path: String, val golden: String, val isDecoded: Boolean, val canvas: IntArray?)

    val valuesName: String get() = if (file.isDecoded) "scores" else "logits"
    val boxesName: String get() = if (file.isDecoded) "boxes" else "offsets"

    companion object {
        const val READS_VERSION = 1

        /** Read spec.json, and what it says of the file of a format. */
        fun parse(text: String, format: String = "onnx", where: String = "spec.json"): Spec =
            of(Json.parse(text, where), format, where, "detection")

        internal fun of(told: Json, format: String, where: String, wanted: String): Spec {
            val version = told["version"].int()
            val model = told["spec"]
            val task = model["task"].text()
            if (version > READS_VERSION || task != wanted) {
                throw SlimfaceException(
                    "$where has version $version and is for $task; this reads $wanted up to version " +
                        "$READS_VERSION. Take the runner of the same bundle.",
                )
            }
            val file = told["files"].list().firstOrNull { it["format"].text() == format }
                ?: throw SlimfaceException("$where: the bundle has no file of $format. Export it with that format.")
            return of(told["name"].text(), model, fileOf(file))
        }

        private fun fileOf(told: Json): ModelFile {
            val canvas = told["canvas"].takeUnless { it.isNull }?.list()?.map { it.int() }?.toIntArray()
            if (canvas != null && (canvas.size != 2 || canvas.any { it < 1 })) {
                throw SlimfaceException("A canvas has a height and a width. Copy the bundle again.")
            }
            return ModelFile(told["path"].text(), told["golden"].text(), told["outputs"].text() == "decoded", canvas)
        }

        private fun of(name: String, model: Json, file: ModelFile): Spec {
            val (rule, grid, plan) = listOf(model["preprocess"], model["anchors"], model["postprocess"])
            val codec = model["codec"]
            val mean = rule["mean"].list().map { it.number().toFloat() }.toFloatArray()
            val levels = grid["levels"].list().map { level(it) }
            if (mean.size != 3 || levels.isEmpty()) {
                throw SlimfaceException("A spec has three means and at least one level. Copy the bundle again.")
            }
            return Spec(
                name, mean, rule["scale"].number().toFloat(), rule["colour"].text() == "bgr",
                max(1, rule["multiple_of"].int()), levels, grid["centre"].number(),
                grid["height_per_width"].number(), grid["clip"].boolean(),
                codec["centre_variance"].number(), codec["size_variance"].number(),
                plan["score_floor"].number(), plan["nms_overlap"].number(), plan["pre_nms"].int(),
                plan["cap"].int(), model["landmarks"].int(), file,
            )
        }

        private fun level(told: Json): Level {
            val stride = told["stride"].int()
            if (stride < 1) throw SlimfaceException("A stride is $stride. Copy the bundle again.")
            val step = if (told["step"].isNull) stride else told["step"].int()
            return Level(stride, step, told["sizes"].list().map { it.number().toFloat() }.toFloatArray())
        }
    }
}

/** The two pixels of a side that each new one is mixed from, and their weights in 2048ths. */
private class Taps(before: Int, after: Int, isColumns: Boolean) {
    val low = IntArray(after)
    val high = IntArray(after)
    val near = IntArray(after)
    val far = IntArray(after)

    init {
        for (i in 0 until after) {
            val place = ((i + 0.5) * (before.toDouble() / after) - 0.5).toFloat()
            val first = floor(place).toInt()
            val part = place - first
            low[i] = first.coerceIn(0, before - 1)
            high[i] = (first + 1).coerceIn(0, before - 1)
            // Beyond the border columns are taken whole; rows keep both weights.
            val isWhole = isColumns && (first < 0 || first + 1 >= before)
            near[i] = if (isWhole) 2048 else round((1 - part) * 2048f).toInt()
            far[i] = if (isWhole) 0 else round(part * 2048f).toInt()
        }
    }
}

/** Resizes to the bits of OpenCV's INTER_LINEAR: no antialiasing. */
internal class Resizer(private val picture: Picture, rows: Int, columns: Int) {
    private val across = Taps(picture.width, columns, true)
    private val down = Taps(picture.height, rows, false)
    private val isSame = rows == picture.height && columns == picture.width

    // OpenCV takes means where both sides are halved, and rounds their halves up.
    private val isHalf = picture.height == 2 * rows && picture.width == 2 * columns

    /** Return a channel of a pixel of the picture as it is after resizing. */
    fun at(x: Int, y: Int, channel: Int): Int {
        val nw = byte(across.low[x], down.low[y], channel)
        if (isSame) return nw
        val ne = byte(across.high[x], down.low[y], channel)
        val sw = byte(across.low[x], down.high[y], channel)
        val se = byte(across.high[x], down.high[y], channel)
        if (isHalf) return (nw + ne + sw + se + 2) shr 2
        val top = (nw * across.near[x] + ne * across.far[x]) shr 4
        val bottom = (sw * across.near[x] + se * across.far[x]) shr 4
        return (((top * down.near[y]) shr 16) + ((bottom * down.far[y]) shr 16) + 2) shr 2
    }

    private fun byte(x: Int, y: Int, channel: Int): Int =
        picture.bytes[y * picture.rowBytes + x * picture.pixelBytes + channel].toInt() and 255
}

/** Resize, normalise and pad a picture; `longest` resizes its longer side to so many pixels. */
fun prepare(spec: Spec, picture: Picture, longest: Int? = null): Input {
    val scale = if (longest == null) 1.0 else longest.toDouble() / max(picture.width, picture.height)
    var rows = side(picture.height * scale)
    var columns = side(picture.width * scale)
    val canvas = spec.file.canvas
    val (height, width) = if (canvas != null) {
        val fit = min(min(canvas[0].toDouble() / rows, canvas[1].toDouble() / columns), 1.0)
        rows = side(rows * fit)
        columns = side(columns * fit)
        canvas[0] to canvas[1]
    } else {
        padded(rows, spec.multipleOf) to padded(columns, spec.multipleOf)
    }
    val images = FloatArray(3 * height * width)
    val resized = Resizer(picture, rows, columns)
    for (plane in 0 until 3) {
        val channel = if (spec.isBgr) 2 - plane else plane
        val mean = spec.mean[channel]
        for (y in 0 until rows) {
            var to = (plane * height + y) * width
            for (x in 0 until columns) images[to++] = (resized.at(x, y, channel) - mean) * spec.scale
        }
    }
    return Input(images, height, width, columns.toFloat() / picture.width, rows.toFloat() / picture.height)
}

internal fun side(value: Double): Int = max(1, round(value).toInt())

private fun padded(side: Int, multiple: Int): Int = (side + multiple - 1) / multiple * multiple

/** Centre x, centre y, width, height of every anchor: by level, row, column, size. */
fun anchorsOf(spec: Spec, height: Int, width: Int): FloatArray {
    val maps = spec.levels.map { Triple(it, padded(height, it.stride) / it.stride, padded(width, it.stride) / it.stride) }
    val anchors = FloatArray(4 * maps.sumOf { (level, rows, columns) -> rows * columns * level.sizes.size })
    var i = 0
    for ((level, rows, columns) in maps) {
        for (y in 0 until rows) for (x in 0 until columns) for (size in level.sizes) {
            anchors[i++] = ((x + spec.centre) * level.step).toFloat()
            anchors[i++] = ((y + spec.centre) * level.step).toFloat()
            anchors[i++] = size
            anchors[i++] = (size * spec.heightPerWidth).toFloat()
        }
    }
    if (spec.isClipped) {
        for (k in anchors.indices) anchors[k] = anchors[k].coerceIn(0f, (if (k % 2 == 1) height else width).toFloat())
    }
    return anchors
}

/** Turn the network's outputs into faces in pixels of the picture, best first. */
fun read(spec: Spec, outputs: Outputs, input: Input, score: Double = spec.scoreFloor): List<Face> {
    val anchors = anchorsOf(spec, input.height, input.width)
    val count = anchors.size / 4
    val points = outputs.landmarks
    if (outputs.values.size != count || outputs.boxes.size != 4 * count || (points?.size ?: 0) != 2 * spec.landmarks * count) {
        throw SlimfaceException("The network answers for ${outputs.values.size} anchors, its spec has $count. Copy the bundle again.")
    }
    if (outputs.values.any { it.isNaN() }) {
        throw SlimfaceException("The network gives values that are no numbers. Copy the bundle again.")
    }
    val odds = if (score <= 0) Double.NEGATIVE_INFINITY else if (score >= 1) Double.POSITIVE_INFINITY else ln(score / (1 - score))
    val limit = if (spec.file.isDecoded) score else odds
    val order = (0 until count).filter { outputs.values[it] >= limit }
        .sortedByDescending { outputs.values[it] }.take(spec.preNms)
    val boxes = order.map { boxAt(spec, outputs.boxes, anchors, it) }
    return suppress(boxes, spec.overlap, spec.cap).map { k ->
        val value = outputs.values[order[k]]
        Face(
            FloatArray(4) { boxes[k][it] / ratio(input, it) },
            if (spec.file.isDecoded) value else (1 / (1 + exp(-value.toDouble()))).toFloat(),
            points?.let { pointsAt(spec, it, anchors, order[k], input) },
        )
    }
}

private fun ratio(input: Input, axis: Int): Float = if (axis % 2 == 0) input.ratioX else input.ratioY

// Liu et al., "SSD", arXiv:1512.02325, equation 2.
private fun boxAt(spec: Spec, boxes: FloatArray, anchors: FloatArray, i: Int): FloatArray {
    val at = 4 * i
    if (spec.file.isDecoded) return boxes.copyOfRange(at, at + 4)
    val x = anchors[at] + boxes[at] * spec.centreVariance * anchors[at + 2]
    val y = anchors[at + 1] + boxes[at + 1] * spec.centreVariance * anchors[at + 3]
    val w = anchors[at + 2] * exp(boxes[at + 2] * spec.sizeVariance) / 2
    val h = anchors[at + 3] * exp(boxes[at + 3] * spec.sizeVariance) / 2
    return floatArrayOf((x - w).toFloat(), (y - h).toFloat(), (x + w).toFloat(), (y + h).toFloat())
}

private fun pointsAt(spec: Spec, points: FloatArray, anchors: FloatArray, i: Int, input: Input): FloatArray {
    val start = 2 * spec.landmarks * i
    return FloatArray(2 * spec.landmarks) { k ->
        val told = points[start + k]
        val axis = k % 2
        val place = if (spec.file.isDecoded) told else {
            (anchors[4 * i + axis] + told * spec.centreVariance * anchors[4 * i + 2 + axis]).toFloat()
        }
        place / ratio(input, axis)
    }
}

/**
 * Greedy suppression of boxes sorted best first; the places of those that stay. `pixel` is 1 where
 * the second corner of a box is its last pixel.
 */
fun suppress(boxes: List<FloatArray>, overlap: Double, cap: Int, pixel: Float = 0f): List<Int> {
    val areas = boxes.map { max(it[2] - it[0] + pixel, 0f) * max(it[3] - it[1] + pixel, 0f) }
    val kept = ArrayList<Int>()
    for (i in boxes.indices) {
        if (kept.size == cap) break
        val one = boxes[i]
        val isHit = kept.any { k ->
            val other = boxes[k]
            val wide = min(one[2], other[2]) - max(one[0], other[0]) + pixel
            val high = min(one[3], other[3]) - max(one[1], other[1]) + pixel
            wide > 0 && high > 0 && wide * high / (areas[i] + areas[k] - wide * high) > overlap
        }
        if (!isHit) kept.add(i)
    }
    return kept
}
