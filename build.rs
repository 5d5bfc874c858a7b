//! Compiles the protobuf files with protox, so that `protoc` does not have to be installed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(
        [
            "permcached/v1/permission_service.proto",
            "permcached/v1/invalidation_service.proto",
            "permcached/v1/watch_service.proto",
        ],
        ["proto"],
    )?;
    let directory = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(directory.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .extern_path(".google.rpc", "::tonic_types::pb")
        .codec_path("crate::transport::codec::SmallBuffers")
        .compile_fds(descriptors)?;
    Ok(())
}
