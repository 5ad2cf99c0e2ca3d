//! Compiles `proto/` without a `protoc` on the machine: protox parses, tonic-prost-build writes the code.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

/// Everything under `proto/` that the server speaks or stores.
const PUBLIC: [&str; 5] = [
    "tandem/v1/entry.proto",
    "tandem/v1/write.proto",
    "tandem/v1/watch.proto",
    "tandem/v1/kv_service.proto",
    "tandem/v1/error.proto",
];
/// What the ops listener speaks.
const ADMIN: [&str; 1] = ["tandem/admin/v1/admin_service.proto"];
const STORAGE: [&str; 2] = ["tandem/storage/v1/log.proto", "tandem/storage/v1/snapshot.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Reflection serves the public files alone: storage stays out of it.
    let public = protox::compile(PUBLIC, ["proto"])?;
    fs::write(out.join("public_descriptors.bin"), public.encode_to_vec())?;
    let admin = protox::compile(ADMIN, ["proto"])?;
    fs::write(out.join("admin_descriptors.bin"), admin.encode_to_vec())?;
    let all = protox::compile(PUBLIC.iter().chain(&ADMIN).chain(&STORAGE), ["proto"])?;
    fs::write(out.join("all_descriptors.bin"), all.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_transport(false)
        // Values travel as shared slices of what was received, so that no door copies them.
        .bytes(".")
        .compile_fds(all)?;
    Ok(())
}
