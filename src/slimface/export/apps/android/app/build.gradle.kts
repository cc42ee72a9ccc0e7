// The plugin compiles Kotlin by itself since version 9.
plugins {
    alias(libs.plugins.android.application)
}

android {
    namespace = "slimface.app"
    compileSdk = 36

    defaultConfig {
        applicationId = "slimface.app"
        // What onnxruntime-android needs since 1.21; CameraX 1.6 needs 23.
        minSdk = 24
        targetSdk = 36
        versionCode = 1
        versionName = "1.0"
        ndk {
            abiFilters += listOf("arm64-v8a", "armeabi-v7a", "x86_64")
        }
    }
    buildTypes {
        release {
            isMinifyEnabled = false
        }
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    androidResources {
        // Weights do not get smaller by packing, and unpacking costs time.
        noCompress += "onnx"
    }
}

dependencies {
    implementation(libs.appcompat)
    implementation(libs.camera.camera2)
    implementation(libs.camera.lifecycle)
    implementation(libs.camera.view)
    implementation(libs.onnxruntime)
    testImplementation(libs.junit)
}
