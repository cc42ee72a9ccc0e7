// Faces by three small networks in a row, each looking at what the one before has left (MTCNN), from
// spec.json of a slimface bundle: plain Kotlin, no library. A runtime computes the networks:
//
//   val cascade = Cascade(CascadeSpec.parse(text)) { net, images, shape -> ... Outputs(logits, offsets, landmarks) }
//   val faces = cascade.detect(picture)              // pixels of the picture
//
// Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks",
// 2016, arXiv:1604.02878. The rules in which published systems differ are in the spec. Boxes are
// computed in 32 bits, since they are rounded to pixels on the way.
package slimface

import kotlin.math.exp
import kotlin.math.floor
import kotlin.math.ln
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round
import kotlin.math.truncate

/** What spec.json says of a cascade; `common` is what it shares with detectors of one network. */
class CascadeSpec private constructor(val common: Spec, model: Json) {
    val minFacePx = model["min_face_px"].number()
    val factor = model["factor"].number()
    val isArea = model["resize"].text() == "area"
    val levelPixel = model["level_pixel"].int()
    val isFloor = model["cells"].text() == "floor"
    val isCut = model["crop"].text() == "cut"
    val pixel = if (model["inclusive"].boolean()) 1f else 0f
    val isSquare = model["square_last"].boolean()
    val offsetPixels = model["offset_pixels"].list().map { it.int() }
    val proposalFloor = model["proposal_floor"].number()
    val levelOverlap = model["level_overlap"].number()
    val proposalOverlap = model["proposal_overlap"].number()
    val refineFloor = model["refine_floor"].number()
    val refineOverlap = model["refine_overlap"].number()
    val proposals = model["proposals"].int()
    private val isCeil = model["architecture"]["options"].let { !it.has("ceil") || it["ceil"].boolean() }

    init {
        if (!(minFacePx > 0 && factor > 0 && factor < 1) || offsetPixels.size != 3) {
            throw SlimfaceException("The rules of the cascade make no sense. Copy the bundle again.")
        }
    }

    /** Files of the three networks in the bundle, in the order in which they are counted. */
    fun files(ending: String = ".onnx"): List<String> = NETS.map { "${common.file.path}/$it$ending" }

    /** How many cells the first network has along a side of so many pixels, from 12 on. */
    fun cellsAlong(side: Int): Int = (side - CELL_PX + (if (isCeil) 1 else 0)) / CELL_STRIDE + 1

    companion object {
        const val CELL_PX = 12
        const val CELL_STRIDE = 2
        val NETS = listOf("pnet", "rnet", "onet")

        fun parse(text: String, format: String = "onnx", where: String = "spec.json"): CascadeSpec {
            val told = Json.parse(text, where)
            return CascadeSpec(Spec.of(told, format, where, "cascade"), told["spec"])
        }
    }
}

/** From the number of a network (0, 1, 2) and images of a shape (count, 3, height, width) to its answer. */
typealias Nets = (net: Int, images: FloatArray, shape: LongArray) -> Outputs

/**
 * Three networks with the rules of their spec.
 *
 * @param bandPixels Rows of the pyramid go through the first network in bands of about so many pixels, and
 * @param batch crops so many at once: memory does not grow with the picture.
 */
class Cascade(
    val spec: CascadeSpec,
    private val bandPixels: Int = 1 shl 16,
    private val batch: Int = 256,
    private val nets: Nets,
) {
    private class Found(val box: FloatArray, val score: Float, val offsets: FloatArray, val points: FloatArray? = null)

    /** Find faces, best first; `longest` resizes the longer side of the picture to so many pixels. */
    fun detect(picture: Picture, longest: Int? = null, score: Double = spec.common.scoreFloor): List<Face> {
        val scale = if (longest == null) 1.0 else longest.toDouble() / max(picture.width, picture.height)
        val (rows, columns) = side(picture.height * scale) to side(picture.width * scale)
        val view = Windowed(picture, rows, columns, spec.isArea)
        val refined = judged(view, proposed(view), 1, 24, spec.refineFloor)
        val seen = squared(suppressed(refined, spec.refineOverlap), 1)
        val ratio = floatArrayOf(columns.toFloat() / picture.width, rows.toFloat() / picture.height)
        return faces(judged(view, seen, 2, 48, score), ratio)
    }

    /** The first network, over a pyramid of the picture. */
    private fun proposed(view: Windowed): List<Found> {
        val found = ArrayList<Found>()
        var scale = CascadeSpec.CELL_PX / spec.minFacePx
        while (true) {
            val (rows, columns) = listOf(view.height, view.width).map { (it * scale + spec.levelPixel).toInt() }
            if (min(rows, columns) <= CascadeSpec.CELL_PX) break
            val cells = spec.cellsAlong(rows)
            val step = max(1, bandPixels / (CascadeSpec.CELL_STRIDE * columns))
            val here = (0 until cells step step).flatMap { scan(view, rows, columns, scale.toFloat(), it, min(it + step, cells)) }
            found += suppressed(best(here), spec.levelOverlap)
            scale *= spec.factor
        }
        return squared(suppressed(best(found), spec.proposalOverlap), 0)
    }

    /** The first network, over some rows of the cells of one level. */
    private fun scan(view: Windowed, rows: Int, columns: Int, scale: Float, first: Int, last: Int): List<Found> {
        val across = spec.cellsAlong(columns)
        val top = CascadeSpec.CELL_STRIDE * first
        // The last row of cells takes what is left: pools may round up.
        val isEnd = last == spec.cellsAlong(rows)
        val bottom = if (isEnd) rows else CascadeSpec.CELL_STRIDE * (last - 1) + CascadeSpec.CELL_PX
        val band = view.rows(rows, columns, top, bottom)
        val raw = answer(0, band, longArrayOf(1, 3, (bottom - top).toLong(), columns.toLong()), (last - first) * across)
        val limit = logit(spec.proposalFloor).toFloat()
        return raw.values.indices.filter { raw.values[it] >= limit }.map {
            Found(cell(it % across, first + it / across, scale), sigmoid(raw.values[it]), four(raw.boxes, it))
        }
    }

    /** Show the crops of all boxes to a network; keep those that it scores high enough, best first. */
    private fun judged(view: Windowed, found: List<Found>, net: Int, side: Int, floor: Double): List<Found> {
        val size = 3 * side * side
        val count = if (net == 2) 2 * spec.common.landmarks else 0
        val kept = ArrayList<Found>()
        for (part in found.chunked(batch)) {
            val crops = FloatArray(part.size * size)
            part.forEachIndexed { i, one -> view.crop(window(one.box, view), side, crops, i * size) }
            val raw = answer(net, crops, longArrayOf(part.size.toLong(), 3, side.toLong(), side.toLong()), part.size)
            part.forEachIndexed { i, one ->
                val score = sigmoid(raw.values[i])
                val points = if (count > 0) raw.landmarks!!.copyOfRange(count * i, count * (i + 1)) else null
                if (score >= floor.toFloat()) kept += Found(one.box, score, four(raw.boxes, i), points)
            }
        }
        return best(kept)
    }

    /** What a network answers to pixels of 0..255. */
    private fun answer(net: Int, pixels: FloatArray, shape: LongArray, count: Int): Outputs {
        normalise(pixels, (shape[2] * shape[3]).toInt())
        val raw = nets(net, pixels, shape)
        val points = if (net == 2) 2 * spec.common.landmarks * count else raw.landmarks?.size ?: 0
        if (raw.values.size != count || raw.boxes.size != 4 * count || (raw.landmarks?.size ?: 0) != points) {
            throw SlimfaceException(
                "${CascadeSpec.NETS[net]} gives ${raw.values.size} logits and ${raw.boxes.size} offsets where $count boxes " +
                    "are asked for. Copy the bundle again.",
            )
        }
        if (!raw.values.all { it.isFinite() } || !raw.boxes.all { it.isFinite() }) {
            throw SlimfaceException("${CascadeSpec.NETS[net]} gives values that are no numbers. Copy the bundle again.")
        }
        return raw
    }

    private fun normalise(pixels: FloatArray, size: Int) {
        val rule = spec.common
        for (i in pixels.indices) pixels[i] = (pixels[i] - rule.mean[i / size % 3]) * rule.scale
        if (!rule.isBgr) return
        for (image in pixels.indices step 3 * size) for (i in image until image + size) {
            val red = pixels[i]
            pixels[i] = pixels[i + 2 * size]
            pixels[i + 2 * size] = red
        }
    }

    private fun best(found: List<Found>) = found.sortedByDescending { it.score }.take(spec.proposals)

    private fun suppressed(found: List<Found>, overlap: Double): List<Found> =
        suppress(found.map { it.box }, overlap, found.size, spec.pixel).map { found[it] }

    /** Move boxes by their offsets, and make them what the next network sees. */
    private fun squared(found: List<Found>, net: Int) =
        found.map { Found(square(moved(it, net)), it.score, it.offsets, it.points) }

    /** From what the third network has left to faces of the picture. */
    private fun faces(found: List<Found>, ratio: FloatArray): List<Face> {
        val moved = found.take(spec.common.preNms).map { one ->
            // Landmarks are fractions of the box that the network has seen, not of the one it moves it to.
            val sides = sides(one.box, 2)
            val first = if (spec.isCut) 1f else 0f
            val points = one.points?.let { told -> FloatArray(told.size) { one.box[it % 2] + told[it] * sides[it % 2] - first } }
            Found(moved(one, 2), one.score, one.offsets, points)
        }
        return suppressedBySmaller(moved, spec.common.overlap.toFloat()).take(spec.common.cap).map { one ->
            val box = if (spec.isSquare) square(one.box) else one.box
            val ended = FloatArray(4) { (if (it > 1) box[it] + spec.pixel else box[it]) / ratio[it % 2] }
            Face(ended, one.score, one.points?.let { told -> FloatArray(told.size) { told[it] / ratio[it % 2] } })
        }
    }

    /** By the share of the smaller box, last pixels included: a small box within a large one goes. */
    private fun suppressedBySmaller(found: List<Found>, overlap: Float): List<Found> {
        fun area(box: FloatArray) = max(box[2] - box[0] + 1, 0f) * max(box[3] - box[1] + 1, 0f)
        val kept = ArrayList<Found>()
        for (one in found) {
            val a = one.box
            val isHit = kept.any { other ->
                val b = other.box
                val wide = max(min(a[2], b[2]) - max(a[0], b[0]) + 1, 0f)
                val high = max(min(a[3], b[3]) - max(a[1], b[1]) + 1, 0f)
                wide * high / max(min(area(a), area(b)), java.lang.Float.MIN_NORMAL) > overlap
            }
            if (!isHit) kept += one
        }
        return kept
    }

    private fun cell(x: Int, y: Int, scale: Float): FloatArray {
        val (left, top) = CascadeSpec.CELL_STRIDE * x to CascadeSpec.CELL_STRIDE * y
        val first = if (spec.isFloor) 1 else 0
        return intArrayOf(left + first, top + first, left + CascadeSpec.CELL_PX, top + CascadeSpec.CELL_PX)
            .map { if (spec.isFloor) floor(it / scale) else round(it / scale) }.toFloatArray()
    }

    /** Which pixels of a picture a network gets to see of a box; at least one. */
    private fun window(box: FloatArray, view: Windowed): IntArray {
        val most = intArrayOf(view.width, view.height)
        val window = IntArray(4) {
            if (spec.isCut) truncate(box[it]).toInt().coerceIn(1, most[it % 2]) - (if (it < 2) 1 else 0)
            else round(box[it]).toInt() + (if (it > 1) 1 else 0)
        }
        for (i in 0 until 2) window[i + 2] = max(window[i + 2], window[i] + 1)
        return window
    }

    private fun sides(box: FloatArray, net: Int) = FloatArray(2) { box[it + 2] - box[it] + spec.offsetPixels[net] }

    private fun moved(found: Found, net: Int): FloatArray {
        val sides = sides(found.box, net)
        return FloatArray(4) { found.box[it] + found.offsets[it] * sides[it % 2] }
    }

    /** The square of the longer side around the same centre. */
    private fun square(box: FloatArray): FloatArray {
        val sides = FloatArray(2) { box[it + 2] - box[it] + spec.pixel }
        val longest = max(sides[0], sides[1])
        val corner = FloatArray(2) { box[it] + (sides[it] - longest) * 0.5f }
        val square = FloatArray(4) { if (it < 2) corner[it] else corner[it - 2] + longest - spec.pixel }
        return if (spec.isCut) square else FloatArray(4) { round(square[it]) }
    }

    private fun four(values: FloatArray, i: Int) = values.copyOfRange(4 * i, 4 * i + 4)

    private fun logit(score: Double): Double =
        if (score <= 0) Double.NEGATIVE_INFINITY else if (score >= 1) Double.POSITIVE_INFINITY else ln(score / (1 - score))

    // In 32 bits many scores are 1, and of those the first goes before the others.
    private fun sigmoid(value: Float): Float = 1f / (1f + exp(-max(value, -87f)))
}
