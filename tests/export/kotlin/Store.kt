// Copies a file of a folder as an app does of its assets: Store ASSETS COPIES PATH
package slimface

import java.io.File
import kotlin.system.exitProcess

object Store {
    @JvmStatic
    fun main(words: Array<String>) {
        val (assets, copies, path) = words
        try {
            println(ModelStore(File(copies)) { File(assets, it).inputStream() }.file(path).path)
        } catch (error: SlimfaceException) {
            System.err.println("Error: ${error.message}")
            exitProcess(1)
        }
    }
}
