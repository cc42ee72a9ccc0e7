package slimface

import java.io.File
import org.junit.Assert.assertTrue
import org.junit.Test

/** What surrounds the network, on the golden picture: gradle test, on any computer. */
class GoldenTest {
    @Test
    fun `the golden picture gives the golden tensors and faces`() {
        val spec = Spec.parse(File("src/main/assets/slimface/spec.json").readText())
        assertTrue(Golden(File("src/test", spec.file.golden)).prove(spec))
    }
}
