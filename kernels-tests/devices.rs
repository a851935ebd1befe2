//! The devices under test: the CPU, and the adapter that `SHADEGRAD_DEVICE` names, or the first that wgpu finds.

use std::sync::OnceLock;

use shadegrad::Device;

/// The GPU that tests use. Without one the test fails, unless `SHADEGRAD_ALLOW_NO_GPU=1` says that it may be left out.
pub(crate) fn gpu() -> Option<&'static Device> {
    static GPU: OnceLock<Option<Device>> = OnceLock::new();
    GPU.get_or_init(|| {
        let found = shadegrad::gpu::adapters();
        let wanted = std::env::var("SHADEGRAD_DEVICE").ok().filter(|name| name != "cpu" && name != "auto");
        let name = wanted.or_else(|| found.first().map(|adapter| adapter.name.clone()));
        match name.map(|name| Device::open(&name)) {
            Some(Ok(device)) => {
                eprintln!("tests use the adapter {device}, {}", device.driver());
                device.spoil_memory();
                Some(device)
            }
            Some(Err(error)) => panic!("{error}"),
            None if std::env::var("SHADEGRAD_ALLOW_NO_GPU").is_ok_and(|value| value == "1") => {
                eprintln!("NO GPU TESTED: no adapter, and SHADEGRAD_ALLOW_NO_GPU=1");
                None
            }
            None => panic!(
                "no Vulkan, Metal or DX12 adapter: run ./kernels-tests/run, which brings a software one, \
                 or set SHADEGRAD_ALLOW_NO_GPU=1 to test the CPU device only"
            ),
        }
    })
    .as_ref()
}

/// The CPU and the GPU.
pub(crate) fn all() -> Vec<Device> {
    let mut devices = vec![Device::cpu()];
    devices.extend(gpu().cloned());
    devices
}
