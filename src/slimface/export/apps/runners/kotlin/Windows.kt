// Parts of a picture, resized to what a small network looks at; outside of the picture all is black.
package slimface

import kotlin.math.max
import kotlin.math.min

/** A picture from which windows are taken, as planes of 0..255; `isArea`: the mean of all that a square touches. */
internal class Windowed(picture: Picture, val height: Int, val width: Int, private val isArea: Boolean) {
    private val pixels = bytesOf(picture, height, width)
    private val step = 3 * (width + 1)
    private val sums = if (isArea) sums() else IntArray(0)

    /** Rows `first` until `last` of the whole picture at another size: three planes after each other. */
    fun rows(rows: Int, columns: Int, first: Int, last: Int): FloatArray {
        val out = FloatArray(3 * (last - first) * columns)
        if (isArea) means(Edges(0, width, 0, columns, columns), Edges(0, height, first, last, rows), out, 0)
        else planes(Resizer(Picture(pixels, width, height), rows, columns), first, last, columns, out, 0)
        return out
    }

    /** A window (left, top, right, bottom; the last two beyond it) at `side` by `side` pixels, into `out`. */
    fun crop(window: IntArray, side: Int, out: FloatArray, at: Int) {
        val (left, top, right, bottom) = window
        if (isArea) return means(Edges(left, right, 0, side, side), Edges(top, bottom, 0, side, side), out, at)
        val wide = right - left
        val part = ByteArray(3 * wide * (bottom - top))
        val (first, last) = max(left, 0) to min(right, width)
        for (y in max(top, 0) until min(bottom, height)) {
            if (first >= last) break
            pixels.copyInto(part, 3 * ((y - top) * wide + first - left), 3 * (y * width + first), 3 * (y * width + last))
        }
        planes(Resizer(Picture(part, wide, bottom - top), side, side), 0, side, side, out, at)
    }

    /** Where the pixels `first` until `last` begin and end, if `count` of them span start to stop: overlapping. */
    private class Edges(start: Int, stop: Int, first: Int, last: Int, count: Int) {
        private val length = (stop - start).toLong()
        val from = IntArray(last - first) { start + ((first + it) * length / count).toInt() }
        val to = IntArray(last - first) { start + (((first + it + 1) * length + count - 1) / count).toInt() }
    }

    /** Sums of all pixels above and left of each corner; they wrap around, their differences are right. */
    private fun sums(): IntArray {
        val sums = IntArray((height + 1) * step)
        for (y in 0 until height) for (c in 0 until 3) {
            var row = 0
            for (x in 0 until width) {
                row += pixels[3 * (y * width + x) + c].toInt() and 255
                val to = (y + 1) * step + 3 * (x + 1) + c
                sums[to] = sums[to - step] + row
            }
        }
        return sums
    }

    private fun means(across: Edges, down: Edges, out: FloatArray, at: Int) {
        val (rows, columns) = down.from.size to across.from.size
        for (y in 0 until rows) for (x in 0 until columns) {
            // Beyond the border the sums stay what they are at it: black adds nothing.
            val (left, right) = 3 * across.from[x].coerceIn(0, width) to 3 * across.to[x].coerceIn(0, width)
            val (above, below) = step * down.from[y].coerceIn(0, height) to step * down.to[y].coerceIn(0, height)
            val area = (down.to[y] - down.from[y]).toDouble() * (across.to[x] - across.from[x])
            for (c in 0 until 3) {
                val sum = sums[below + right + c] - sums[above + right + c] - sums[below + left + c] + sums[above + left + c]
                out[at + (c * rows + y) * columns + x] = (sum.toFloat() / area).toFloat()
            }
        }
    }

    private fun planes(resized: Resizer, first: Int, last: Int, columns: Int, out: FloatArray, at: Int) {
        var to = at
        for (c in 0 until 3) for (y in first until last) for (x in 0 until columns) out[to++] = resized.at(x, y, c).toFloat()
    }

    private fun bytesOf(picture: Picture, rows: Int, columns: Int): ByteArray {
        val resized = Resizer(picture, rows, columns)
        return ByteArray(3 * rows * columns) { resized.at(it / 3 % columns, it / 3 / columns, it % 3).toByte() }
    }
}
