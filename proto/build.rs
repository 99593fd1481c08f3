//! Compiles the schema without a system `protoc`; keys and values become `Bytes`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "etcd/etcdserverpb.proto",
        "etcd/v3lockpb.proto",
        "etcd/v3electionpb.proto",
        "etcd/leasepb.proto",
        "quorate/command.proto",
        "quorate/insight.proto",
        "quorate/peer.proto",
        "grpc/health.proto",
    ];
    let folders = ["etcd", "quorate", "grpc"];
    for folder in folders {
        println!("cargo:rerun-if-changed={folder}");
    }
    let descriptors = protox::compile(files, folders)?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
