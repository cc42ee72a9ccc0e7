// Model files of an app, copied out of its assets when they change. Plain Kotlin, so that it is tested
// on any JVM.
package slimface

import java.io.File
import java.io.IOException
import java.io.InputStream
import java.security.MessageDigest

/**
 * Files that a runtime opens by their path, kept in a folder under their SHA-256: an update of the app
 * brings another digest and is picked up, a damaged copy is made again.
 *
 * @param folder Where copies are kept; older ones are removed.
 * @param asset Opens a file of the assets. `SHA256SUMS` among them lists the digests.
 */
class ModelStore(private val folder: File, private val asset: (String) -> InputStream) {
    /** Return the text of an asset. */
    fun text(path: String): String = opened(path) { String(it.readBytes(), Charsets.UTF_8) }

    /** Return a file with the content of an asset. */
    fun file(path: String): File {
        val digest = digestOf(path)
        val place = File(folder, "$digest-${File(path).name}")
        if (place.isFile && sha256(place) == digest) return place
        copy(path, place, digest)
        folder.listFiles()?.filter { it != place && it.name.endsWith("-${File(path).name}") }?.forEach { it.delete() }
        return place
    }

    private fun copy(path: String, place: File, digest: String) {
        folder.mkdirs()
        val part = File(folder, "part-${place.name}")
        opened(path) { source -> part.outputStream().use { source.copyTo(it) } }
        if (sha256(part) != digest) {
            part.delete()
            throw SlimfaceException("The asset $path is not the one in SHA256SUMS. Export the project again, or install the app again.")
        }
        if (!part.renameTo(place)) throw SlimfaceException("$place cannot be written. Make room on the phone.")
    }

    private fun digestOf(path: String): String =
        text("SHA256SUMS").lineSequence().map { it.split("  ", limit = 2) }
            .firstOrNull { it.size == 2 && it[1] == path }?.get(0)
            ?: throw SlimfaceException("SHA256SUMS of the assets has no $path. Export the project again.")

    private fun <T> opened(path: String, use: (InputStream) -> T): T = try {
        asset(path).use(use)
    } catch (error: IOException) {
        throw SlimfaceException("The asset $path cannot be copied: ${error.message}. Export the project again, or make room on the phone.", error)
    }

    private fun sha256(file: File): String {
        val digest = MessageDigest.getInstance("SHA-256")
        file.inputStream().use { source ->
            val bytes = ByteArray(1 shl 16)
            generateSequence { source.read(bytes).takeIf { it >= 0 } }.forEach { digest.update(bytes, 0, it) }
        }
        return digest.digest().joinToString("") { "%02x".format(it) }
    }
}
