//! Bringing results home without stopping the device.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use super::Context;
use crate::{Error, Result};

/// Bytes on their way from the device. Several may be under way; each arrives some steps later.
#[derive(Debug)]
pub struct Readback {
    context: Arc<Context>,
    staging: Option<wgpu::Buffer>,
    bytes: u64,
    arrived: Receiver<std::result::Result<(), wgpu::BufferAsyncError>>,
}

impl Readback {
    pub(crate) fn start(context: &Arc<Context>, staging: wgpu::Buffer, bytes: u64) -> Self {
        let (sender, arrived) = channel();
        staging.map_async(wgpu::MapMode::Read, 0..bytes, move |result| {
            // The receiver may be gone: then nobody wants the bytes.
            let _ = sender.send(result);
        });
        Self { context: Arc::clone(context), staging: Some(staging), bytes, arrived }
    }

    /// Whether the bytes are there; never waits.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn try_take(&mut self) -> Result<Option<Vec<u8>>> {
        self.context.poll(false)?;
        match self.arrived.try_recv() {
            Ok(result) => self.take(result).map(Some),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Error::DeviceLost("a read-back was dropped".to_owned())),
        }
    }

    /// Waits for the bytes.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn wait(mut self) -> Result<Vec<u8>> {
        let _span = self.context.switches.span("gpu", "wait for a read-back");
        self.context.poll(true)?;
        match self.arrived.recv() {
            Ok(result) => self.take(result),
            Err(_) => Err(Error::DeviceLost("a read-back was dropped".to_owned())),
        }
    }

    fn take(&mut self, result: std::result::Result<(), wgpu::BufferAsyncError>) -> Result<Vec<u8>> {
        result.map_err(|error| Error::DeviceLost(error.to_string()))?;
        let Some(staging) = self.staging.take() else {
            return Err(Error::DeviceLost("a read-back was taken twice".to_owned()));
        };
        let bytes = mapped(&staging, self.bytes)?;
        self.context.recycle_staging(staging);
        Ok(bytes)
    }
}

/// Copies a mapped buffer out and unmaps it.
fn mapped(staging: &wgpu::Buffer, bytes: u64) -> Result<Vec<u8>> {
    let view = staging.slice(0..bytes).get_mapped_range().map_err(|error| Error::DeviceLost(error.to_string()))?;
    let out = view.to_vec();
    drop(view);
    staging.unmap();
    Ok(out)
}

/// Waits for a buffer and copies it out.
pub(crate) fn map_now(device: &wgpu::Device, staging: &wgpu::Buffer, offset: u64, bytes: u64) -> Result<Vec<u8>> {
    let (sender, arrived) = channel();
    staging.map_async(wgpu::MapMode::Read, offset..offset + bytes, move |result| {
        let _ = sender.send(result);
    });
    device.poll(wgpu::PollType::wait_indefinitely()).map_err(|error| Error::DeviceLost(error.to_string()))?;
    match arrived.recv() {
        Ok(Ok(())) => mapped(staging, bytes),
        Ok(Err(error)) => Err(Error::DeviceLost(error.to_string())),
        Err(_) => Err(Error::DeviceLost("a read-back was dropped".to_owned())),
    }
}
