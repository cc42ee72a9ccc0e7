// JSON, as much as spec.json and golden.json need; the same on Android and on any JVM.
package slimface

/** A parsed value; `where` names the text in errors. */
class Json private constructor(private val value: Any?, private val where: String) {
    val isNull: Boolean get() = value == null

    fun number(): Double = value as? Double ?: wrong("a number")

    fun int(): Int = number().toInt()

    fun boolean(): Boolean = value as? Boolean ?: wrong("true or false")

    fun text(): String = value as? String ?: wrong("a text")

    fun list(): List<Json> = (value as? List<*> ?: wrong("a list")).map { Json(it, where) }

    fun has(key: String): Boolean = value is Map<*, *> && value.containsKey(key)

    operator fun get(key: String): Json {
        val fields = value as? Map<*, *> ?: wrong("an object")
        if (!fields.containsKey(key)) throw SlimfaceException("$where has no '$key'. Copy the bundle again.")
        return Json(fields[key], where)
    }

    fun keys(): Set<String> = (value as? Map<*, *> ?: wrong("an object")).keys.map { it as String }.toSet()

    private fun wrong(wanted: String): Nothing =
        throw SlimfaceException("$where has something else than $wanted in one place. Copy the bundle again.")

    companion object {
        fun parse(text: String, where: String): Json = Json(Reader(text, where).whole(), where)
    }

    private class Reader(private val text: String, private val where: String) {
        private var at = 0
        private var depth = 0

        fun whole(): Any? {
            val value = value()
            skip()
            if (at != text.length) fail("something follows the end")
            return value
        }

        private fun fail(what: String): Nothing =
            throw SlimfaceException("$where: $what at character $at; it is no JSON. Copy the bundle again.")

        private fun skip() {
            while (at < text.length && text[at] in " \t\r\n") at++
        }

        private fun next(): Char {
            skip()
            if (at >= text.length) fail("the text ends")
            return text[at]
        }

        private fun take(wanted: Char): Boolean {
            if (next() != wanted) return false
            at++
            return true
        }

        private fun value(): Any? {
            if (++depth > 64) fail("values lie too deep in each other")
            val made: Any? = when (next()) {
                '{' -> fields()
                '[' -> items()
                '"' -> string()
                else -> plain()
            }
            depth--
            return made
        }

        private fun fields(): Map<String, Any?> {
            val made = LinkedHashMap<String, Any?>()
            at++
            if (take('}')) return made
            do {
                if (next() != '"') fail("no key")
                val key = string()
                if (!take(':')) fail("no ':'")
                made[key] = value()
            } while (take(','))
            if (!take('}')) fail("no '}'")
            return made
        }

        private fun items(): List<Any?> {
            val made = ArrayList<Any?>()
            at++
            if (take(']')) return made
            do made.add(value()) while (take(','))
            if (!take(']')) fail("no ']'")
            return made
        }

        private fun plain(): Any? {
            val start = at
            while (at < text.length && (text[at].isLetterOrDigit() || text[at] in "+-.")) at++
            return when (val word = text.substring(start, at)) {
                "true" -> true
                "false" -> false
                "null" -> null
                else -> word.toDoubleOrNull() ?: fail("no value")
            }
        }

        private fun string(): String {
            val made = StringBuilder()
            at++
            while (at < text.length && text[at] != '"') {
                val letter = text[at++]
                made.append(if (letter == '\\') escaped() else letter)
            }
            if (at >= text.length) fail("a text without an end")
            at++
            return made.toString()
        }

        private fun escaped(): Char {
            if (at >= text.length) fail("a text without an end")
            val letter = text[at++]
            if (letter == 'u') {
                val code = text.substring(at, minOf(at + 4, text.length)).toIntOrNull(16) ?: fail("an escape that is none")
                at += 4
                return code.toChar()
            }
            val known = "\"\\/bfnrt".indexOf(letter)
            if (known < 0) fail("an escape that is none")
            return "\"\\/\b\u000c\n\r\t"[known]
        }
    }
}
