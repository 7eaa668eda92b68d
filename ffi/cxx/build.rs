//! Compiles the C++ half of the bridge, and tells the tests where its headers are.

fn main() {
    cxx_build::bridge("src/lib.rs").std("c++17").compile("inhouse-cxx");
    println!("cargo:rerun-if-changed=src/lib.rs");
    println!("cargo:rerun-if-changed=include/listener.h");
    if let Some(out) = std::env::var_os("OUT_DIR") {
        println!("cargo:rustc-env=INHOUSE_CXX_BRIDGE={}/cxxbridge", out.display());
    }
}
