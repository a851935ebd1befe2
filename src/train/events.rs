//! TensorBoard event files, written by ourselves: `tensorboard --logdir runs` shows the curves while a run goes on.
//!
//! An event file is a sequence of TFRecords: length (`u64`), masked CRC-32C of those 8 bytes, the bytes, their masked
//! CRC-32C, all little-endian. The bytes are one `Event` of tensorflow's `event.proto`; the messages below hold the few
//! fields of it that are used, under the numbers of that file.
//!
//! **Steps** count updates since the start of the run, for the values of an epoch too (their `epoch` stands beside
//! them): on one axis, a resumed run is consistent. It writes a file of its own that opens with a session start at the
//! step it goes on from, whereupon TensorBoard forgets what the first part had written from there on.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use super::EpochLog;
use crate::{Error, Result};

/// One record of the file.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(oneof = "Content", tags = "2, 4")]
    content: Option<Content>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Content {
    #[prost(float, tag = "2")]
    SimpleValue(f32),
    #[prost(message, tag = "4")]
    Image(Image),
}

#[derive(Clone, PartialEq, Message)]
struct Image {
    #[prost(int32, tag = "1")]
    height: i32,
    #[prost(int32, tag = "2")]
    width: i32,
    /// 3: RGB.
    #[prost(int32, tag = "3")]
    colorspace: i32,
    /// The PNG file's bytes.
    #[prost(bytes = "vec", tag = "4")]
    encoded_image_string: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    /// 1: start.
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Where an event file's name starts; TensorBoard looks for it.
const PREFIX: &str = "events.out.tfevents.";

/// Writes one event file. Every record is handed to the system whole, so a killed run loses at most its last one.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Starts a new event file in `folder` for a run that goes on after `step` updates (0: a new run).
    ///
    /// ```
    /// use shadegrad::train::EventWriter;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let folder = tempfile::tempdir()?;
    /// let mut events = EventWriter::create(folder.path(), 0)?;
    /// events.scalars(1, &[("step/loss", 0.7)])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn create(folder: &Path, step: u64) -> Result<Self> {
        // The files are read in the order of their names, so a later one gets a later second.
        let mut second = now() as u64;
        for entry in fs::read_dir(folder).map_err(Error::io("read", folder))?.filter_map(std::result::Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let earlier = name.strip_prefix(PREFIX).and_then(|rest| rest.split('.').next()?.parse::<u64>().ok());
            second = second.max(earlier.map_or(0, |earlier| earlier + 1));
        }
        let path = folder.join(format!("{PREFIX}{second:010}.shadegrad"));
        let file = File::create(&path).map_err(Error::io("write", &path))?;
        let mut writer = Self { path, file };
        writer.write(0, What::FileVersion("brain.Event:2".to_owned()))?;
        if step > 0 {
            // What an earlier session wrote from here on is void: those steps are done again.
            writer.write(step + 1, What::SessionLog(SessionLog { status: 1 }))?;
        }
        Ok(writer)
    }

    /// The values of one step, by tag.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let value = values
            .iter()
            .map(|(tag, value)| Value { tag: (*tag).to_owned(), content: Some(Content::SimpleValue(*value as f32)) });
        self.write(step, What::Summary(Summary { value: value.collect() }))
    }

    /// The loss of each step, as [`super::Trainer::take_losses`] gives them.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn losses(&mut self, losses: &[(u64, f64)]) -> Result<()> {
        losses.iter().try_for_each(|(step, loss)| self.scalars(*step, &[("step/loss", *loss)]))
    }

    /// The values of an epoch that ended after `step` updates, under the keys of `log.jsonl`.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn epoch(&mut self, step: u64, line: &EpochLog) -> Result<()> {
        let mut values = vec![
            ("epoch", line.epoch as f64),
            ("train_loss", line.train_loss),
            ("val_loss", line.val_loss),
            ("val_iou", line.val_iou),
            ("val_dice", line.val_dice),
            ("lr", line.lr),
            ("images_per_second", line.images_per_second),
        ];
        values.extend(line.device_share.map(|share| ("device_share", share)));
        values.extend(line.loss_scale.map(|scale| ("loss_scale", scale)));
        self.scalars(step, &values)
    }

    /// A picture: the bytes of a PNG file of this size.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn image(&mut self, step: u64, tag: &str, png: Vec<u8>, height: usize, width: usize) -> Result<()> {
        let image = Image { height: height as i32, width: width as i32, colorspace: 3, encoded_image_string: png };
        let value = Value { tag: tag.to_owned(), content: Some(Content::Image(image)) };
        self.write(step, What::Summary(Summary { value: vec![value] }))
    }

    fn write(&mut self, step: u64, what: What) -> Result<()> {
        let event = Event { wall_time: now(), step: step as i64, what: Some(what) };
        self.file.write_all(&record(&event.encode_to_vec())).map_err(Error::io("write", &self.path))
    }
}

/// One TFRecord.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let parts: [&[u8]; 4] = [&length, &masked_crc(&length).to_le_bytes(), bytes, &masked_crc(bytes).to_le_bytes()];
    parts.concat()
}

/// TFRecord's checksum: CRC-32C, turned and shifted, so that the checksum of data that holds checksums stays good.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Seconds since 1970; 0 if the clock stands before that.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}
