//! TensorBoard files, read back by a reader that shares nothing with the writer: its own CRC, its own walk over the
//! protobuf wire format.

use std::fs;
use std::path::{Path, PathBuf};

use shadegrad::train::{EpochLog, EventWriter};

/// CRC-32C (Castagnoli) bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

fn masked(bytes: &[u8]) -> u32 {
    let crc = crc32c(bytes);
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The records of a file; panics where a checksum is wrong.
fn records(path: &Path) -> Vec<Vec<u8>> {
    let file = fs::read(path).unwrap();
    let u32_at = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let (mut at, mut found) = (0, Vec::new());
    while at < file.len() {
        let length = u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
        assert_eq!(u32_at(at + 8), masked(&file[at..at + 8]), "checksum of the length at {at}");
        let bytes = file[at + 12..at + 12 + length].to_vec();
        assert_eq!(u32_at(at + 12 + length), masked(&bytes), "checksum of the record at {at}");
        found.push(bytes);
        at += 16 + length;
    }
    found
}

/// The fields of a protobuf message: number, and varint or bytes.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    fn take(bytes: &mut &[u8], n: usize) -> Vec<u8> {
        let (head, rest) = bytes.split_at(n);
        *bytes = rest;
        head.to_vec()
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let field = match key & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => Field::Bytes(take(&mut bytes, 8)),
            5 => Field::Bytes(take(&mut bytes, 4)),
            2 => {
                let length = varint(&mut bytes) as usize;
                Field::Bytes(take(&mut bytes, length))
            }
            wire => panic!("wire type {wire}"),
        };
        found.push((key >> 3, field));
    }
    found
}

#[derive(Debug, Clone, PartialEq)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Field {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(number) => panic!("{number} instead of bytes"),
        }
    }
}

fn field(message: &[(u64, Field)], number: u64) -> Option<&Field> {
    message.iter().find(|(found, _)| *found == number).map(|(_, field)| field)
}

/// The scalars of a file as (step, tag, value).
fn scalars(path: &Path) -> Vec<(u64, String, f32)> {
    let mut found = Vec::new();
    for record in records(path) {
        let event = fields(&record);
        let step = match field(&event, 2) {
            Some(Field::Number(step)) => *step,
            _ => 0,
        };
        let Some(summary) = field(&event, 5) else { continue };
        for (_, value) in fields(summary.bytes()) {
            let value = fields(value.bytes());
            let Some(number) = field(&value, 2) else { continue };
            let tag = String::from_utf8(field(&value, 1).unwrap().bytes().to_vec()).unwrap();
            found.push((step, tag, f32::from_le_bytes(number.bytes().try_into().unwrap())));
        }
    }
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn event_files_hold_what_was_written() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the reader's own checksum");
    let folder = tempfile::tempdir().unwrap();
    let mut events = EventWriter::create(folder.path(), 0).unwrap();
    events.losses(&[(1, 0.75), (2, 0.5)]).unwrap();
    let line = EpochLog {
        epoch: 0,
        train_loss: 0.625,
        val_loss: 0.5,
        val_iou: 0.25,
        val_dice: 0.375,
        lr: 0.125,
        seconds: 2.0,
        images_per_second: 8.0,
        val_dice_batch: 0.5,
        train_iou: None,
        best: true,
        predicted_pixels: 3,
        device_share: None,
        loss_scale: None,
        skipped_steps: None,
        fell_back: false,
    };
    events.epoch(2, &line).unwrap();
    events.image(2, "validation/P_3", vec![1, 2, 3, 200], 5, 300).unwrap();
    let files = files(folder.path());
    assert_eq!(files.len(), 1);
    assert!(files[0].file_name().unwrap().to_string_lossy().starts_with("events.out.tfevents."));
    let expected = [
        (1, "step/loss", 0.75),
        (2, "step/loss", 0.5),
        (2, "epoch", 0.0),
        (2, "train_loss", 0.625),
        (2, "val_loss", 0.5),
        (2, "val_iou", 0.25),
        (2, "val_dice", 0.375),
        (2, "lr", 0.125),
        (2, "images_per_second", 8.0),
    ];
    let found = scalars(&files[0]);
    assert_eq!(found, expected.map(|(step, tag, value)| (step, tag.to_owned(), value)));

    let all = records(&files[0]);
    let version = fields(&all[0]);
    assert_eq!(field(&version, 3).unwrap().bytes(), b"brain.Event:2");
    let seconds = f64::from_le_bytes(field(&version, 1).unwrap().bytes().try_into().unwrap());
    assert!(seconds > 1.6e9, "{seconds}");
    let summary = fields(field(&fields(&all[4]), 5).unwrap().bytes());
    let image = fields(field(&fields(summary[0].1.bytes()), 4).unwrap().bytes());
    let numbers = [1, 2, 3].map(|number| field(&image, number).cloned());
    assert_eq!(numbers, [5, 300, 3].map(|number| Some(Field::Number(number))));
    assert_eq!(field(&image, 4).unwrap().bytes(), [1, 2, 3, 200]);
}

#[test]
fn a_resumed_run_starts_a_later_file_that_voids_the_steps_it_repeats() {
    let folder = tempfile::tempdir().unwrap();
    for step in [0, 40, 40] {
        EventWriter::create(folder.path(), step).unwrap().scalars(step + 1, &[("step/loss", 1.0)]).unwrap();
    }
    let files = files(folder.path());
    assert_eq!(files.len(), 3, "in one second, three files");
    for (file, first) in files.iter().zip([None, Some(41), Some(41)]) {
        let start = fields(&records(file)[1]);
        let session = field(&start, 7).map(|session| fields(session.bytes()));
        assert_eq!(session.is_some(), first.is_some());
        if let Some(first) = first {
            assert_eq!(field(&start, 2), Some(&Field::Number(first)));
            assert_eq!(session, Some(vec![(1, Field::Number(1))]));
        }
    }
}
