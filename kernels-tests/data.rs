//! Reading, splitting, normalising, phantoms, metrics and pictures. What needs the real images says so on stderr and
//! passes when `../shared` is missing.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use shadegrad::data::normalize::{Rescale, normalize_slice};
use shadegrad::data::phantom::{PhantomSettings, best_threshold, phantom_dataset, phantom_patient, write_phantom};
use shadegrad::data::{Dataset, Normalization, Patient, Slice, Split};
use shadegrad::eval::overlay::{
    PREDICTED, TRUTH, Tile, contact_sheet, overlay, write_mask, write_overlay, write_probability,
};
use shadegrad::eval::{Metrics, SliceCounts};
use tempfile::TempDir;
use tiff::encoder::{TiffEncoder, colortype};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const SMALL: PhantomSettings = PhantomSettings { patients: 3, slices: 4, size: 32, seed: 5 };

/// The validation patients of the 14-patient part's fixed split.
const VALIDATION: [&str; 3] = ["TCGA_CS_6665_20010817", "TCGA_DU_8166_19970322", "TCGA_HT_7879_19981009"];

// ---------------------------------------------------------------------------------------------------------------------
// Help for the tests

/// The folder of real images, or a visible note that the test is skipped. Not `eprintln!`, which cargo hides.
fn real(test: &str) -> Option<PathBuf> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/lgg"));
    if folder.is_dir() {
        return Some(folder.to_owned());
    }
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {} is missing", folder.display());
    None
}

fn quiet(_: usize, _: usize) {}

fn read(root: &Path) -> shadegrad::Result<Dataset> {
    Dataset::read(root, &quiet)
}

/// A small phantom set on disk: the folder to keep, `kaggle_3m`, and the first patient's folder and name.
fn small_set() -> Outcome<(TempDir, PathBuf, PathBuf, String)> {
    let folder = tempfile::tempdir()?;
    let root = write_phantom(folder.path(), &SMALL, &quiet)?;
    let name = phantom_patient(&SMALL, 0)?.name;
    let patient = root.join(&name);
    Ok((folder, root, patient, name))
}

/// Both `read` and `inspect` must complain about `file` with all of `words`; `inspect` finds exactly `count` problems.
fn refuses(root: &Path, file: &str, words: &[&str], count: usize) {
    let message = read(root).err().map_or_else(|| "no error".to_owned(), |error| error.to_string());
    for word in words.iter().chain([&file]) {
        assert!(message.contains(word), "{message:?} does not contain {word:?}");
    }
    let found = Dataset::inspect(root);
    assert_eq!(found.problems.len(), count, "{:#?}", found.problems);
    assert!(found.problems.iter().any(|problem| problem.contains(words[0])), "{:#?}", found.problems);
}

fn tiff_bytes<C: colortype::ColorType>(width: u32, height: u32, pixels: &[C::Inner]) -> Outcome<Vec<u8>>
where
    [C::Inner]: tiff::encoder::TiffValue,
{
    let mut bytes = Cursor::new(Vec::new());
    TiffEncoder::new(&mut bytes)?.write_image::<C>(width, height, pixels)?;
    Ok(bytes.into_inner())
}

/// A data set of black slices without files: `slices[p]` of them for patient `p`.
fn black(slices: &[usize]) -> Dataset {
    let patients = slices.iter().enumerate().map(|(at, &count)| Patient {
        name: format!("P{at}"),
        slices: (1..=count as u32)
            .map(|number| Slice { number, path: PathBuf::new(), image: vec![0; 3], mask: vec![0] })
            .collect(),
    });
    Dataset { root: PathBuf::from("black"), patients: patients.collect(), height: 1, width: 1, channels: 3 }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

// ---------------------------------------------------------------------------------------------------------------------
// Reading

#[test]
fn phantom_files_read_back_equal() -> Outcome {
    let (folder, root, patient, name) = small_set()?;
    let made = phantom_dataset(&SMALL)?;
    fs::write(root.join("README.md"), "not a slice")?;
    fs::write(root.join("data.csv"), "Patient,x\n")?;
    fs::write(patient.join("notes.txt"), "not a slice")?;
    fs::write(patient.join("._hidden_1.tif"), "not a slice")?;
    // Named as kaggle_3m, as the folder above, and with a folder between.
    let outer = folder.path().join("outer");
    fs::create_dir_all(&outer)?;
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let count = |done: usize, total: usize| {
        assert!(done <= total && total == 12);
        calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    };
    for set in [Dataset::read(&root, &count)?, read(folder.path())?] {
        assert_eq!((set.height, set.width, set.channels, set.slice_count()), (32, 32, 3, 12));
        assert!(set.root.ends_with("kaggle_3m"));
        assert_eq!(set.indices().count(), 12);
        for (read, made) in set.patients.iter().zip(&made.patients) {
            assert_eq!(read.name, made.name);
            for (read, made) in read.slices.iter().zip(&made.slices) {
                assert_eq!((read.number, &read.image, &read.mask), (made.number, &made.image, &made.mask));
            }
        }
        assert_eq!(set.find(&name.to_lowercase()), Some(0));
        assert_eq!(set.find("nobody"), None);
    }
    assert_eq!(calls.into_inner(), 12);
    fs::rename(&root, outer.join("kaggle_3m"))?;
    assert_eq!(read(folder.path())?.patients.len(), 3);
    // One patient's folder alone, and masks of 0 and 1.
    let patient = outer.join("kaggle_3m").join(&name);
    for slice in &made.patients[0].slices {
        let mask = tiff_bytes::<colortype::Gray8>(32, 32, &slice.mask)?;
        fs::write(patient.join(format!("{name}_{}_mask.tif", slice.number)), mask)?;
    }
    let set = read(&patient)?;
    assert_eq!((set.patients.len(), &set.patients[0].name), (1, &name));
    assert!(set.patients[0].slices.iter().zip(&made.patients[0].slices).all(|(read, made)| read.mask == made.mask));
    Ok(())
}

#[test]
fn slices_sort_by_number_not_by_text() -> Outcome {
    let folder = tempfile::tempdir()?;
    let settings = PhantomSettings { patients: 1, slices: 12, ..SMALL };
    write_phantom(folder.path(), &settings, &quiet)?;
    let set = read(folder.path())?;
    let numbers: Vec<_> = set.patients[0].slices.iter().map(|slice| slice.number).collect();
    assert_eq!(numbers, (1..=12).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn missing_and_empty_folders_are_named() -> Outcome {
    let folder = tempfile::tempdir()?;
    refuses(&folder.path().join("nowhere"), "nowhere", &["no such folder", "kaggle_3m"], 1);
    let archive = folder.path().join("archive.zip");
    fs::write(&archive, "zip")?;
    refuses(&archive, "archive.zip", &["unpack"], 1);
    fs::remove_file(&archive)?;
    fs::write(folder.path().join("README.md"), "nothing here")?;
    refuses(folder.path(), "", &["no pair", "kaggle_3m"], 1);
    Ok(())
}

#[test]
fn unpaired_files_are_named() -> Outcome {
    let (_keep, root, patient, name) = small_set()?;
    let (image, mask) = (patient.join(format!("{name}_2.tif")), patient.join(format!("{name}_2_mask.tif")));
    let kept = fs::read(&image)?;
    fs::remove_file(&image)?;
    refuses(&root, &format!("{name}_2_mask.tif"), &["this mask has no image"], 1);
    fs::write(&image, kept)?;
    fs::remove_file(&mask)?;
    refuses(&root, &format!("{name}_2.tif"), &["this image has no mask"], 1);
    assert_eq!(Dataset::inspect(&root).slices, 11);
    Ok(())
}

#[test]
fn bad_images_are_named() -> Outcome {
    let (_keep, root, patient, name) = small_set()?;
    let file = format!("{name}_3.tif");
    let path = patient.join(&file);
    let good = fs::read(&path)?;
    for cut in [0, 4, 100, good.len() / 2, good.len() - 1] {
        fs::write(&path, &good[..cut])?;
        refuses(&root, &file, &["damaged or cut off"], 1);
    }
    let plain = tiff_bytes::<colortype::RGB8>(32, 32, &[7; 3072])?;
    fs::write(&path, &plain[..plain.len() / 2])?;
    refuses(&root, &file, &["damaged or cut off"], 1);
    fs::write(&path, tiff_bytes::<colortype::RGB16>(32, 32, &[700; 3072])?)?;
    refuses(&root, &file, &["16 bits", "0..255"], 1);
    fs::write(&path, tiff_bytes::<colortype::Gray8>(32, 32, &[7; 1024])?)?;
    refuses(&root, &file, &["RGB", "Gray"], 1);
    fs::write(&path, tiff_bytes::<colortype::RGBA8>(32, 32, &[7; 4096])?)?;
    refuses(&root, &file, &["RGB", "RGBA"], 1);
    // Mask of 32x32 beside an image of 30x32.
    fs::write(&path, tiff_bytes::<colortype::RGB8>(30, 32, &[7; 2880])?)?;
    refuses(&root, &format!("{name}_3_mask.tif"), &["32x32", "32x30", "one size"], 1);
    // Both changed: now the slice differs from the others.
    fs::write(patient.join(format!("{name}_3_mask.tif")), tiff_bytes::<colortype::Gray8>(30, 32, &[0; 960])?)?;
    refuses(&root, &file, &["32x30", "32x32", "one size"], 1);
    Ok(())
}

#[test]
fn bad_masks_are_named() -> Outcome {
    let (_keep, root, patient, name) = small_set()?;
    let file = format!("{name}_1_mask.tif");
    let path = patient.join(&file);
    let mut mask = vec![0u8; 1024];
    for (value, other) in [(127, 0), (1, 255), (2, 1), (254, 255)] {
        (mask[33], mask[40]) = (value, other);
        fs::write(&path, tiff_bytes::<colortype::Gray8>(32, 32, &mask)?)?;
        refuses(&root, &file, &[&format!("the value {value} at row 1, column 1"), "0 and 255"], 1);
    }
    fs::write(&path, tiff_bytes::<colortype::RGB8>(32, 32, &[0; 3072])?)?;
    refuses(&root, &file, &["one grey channel"], 1);
    fs::write(&path, tiff_bytes::<colortype::Gray16>(32, 32, &[0; 1024])?)?;
    refuses(&root, &file, &["16 bits"], 1);
    Ok(())
}

#[test]
fn repeated_patients_and_slices_are_named() -> Outcome {
    let (_keep, root, patient, name) = small_set()?;
    fs::copy(patient.join(format!("{name}_2.tif")), patient.join(format!("{name}_02.tif")))?;
    refuses(&root, &name, &["slice number 2 occurs twice"], 1);
    fs::remove_file(patient.join(format!("{name}_02.tif")))?;

    let copy = |from: &Path, to: &Path, rename: &dyn Fn(&str) -> String| -> Outcome {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            fs::copy(entry.path(), to.join(rename(&entry.file_name().to_string_lossy())))?;
        }
        Ok(())
    };
    // The same folder deeper; the same name in another case; the same TCGA patient with another date.
    let deeper = root.join("again").join(&name);
    copy(&patient, &deeper, &str::to_owned)?;
    refuses(&root, &name, &["is also in", "one person"], 1);
    fs::remove_dir_all(root.join("again"))?;
    let lower = root.join("x").join(name.to_lowercase());
    copy(&patient, &lower, &str::to_lowercase)?;
    refuses(&root, "", &["is also in"], 1);
    fs::remove_dir_all(root.join("x"))?;
    for date in ["20000101", "20010202"] {
        let tcga = format!("TCGA_CS_0001_{date}");
        copy(&patient, &root.join(&tcga), &|file| file.replace(&name, &tcga))?;
    }
    refuses(&root, "TCGA_CS_0001_20010202", &["is also in"], 1);
    fs::remove_dir_all(root.join("TCGA_CS_0001_20010202"))?;
    let set = read(&root)?;
    assert_eq!(set.find("tcga_cs_0001"), set.find("TCGA_CS_0001_20000101"));
    assert_eq!(set.patients.len(), 4);
    Ok(())
}

#[test]
fn inspect_collects_every_problem() -> Outcome {
    let (_keep, root, patient, name) = small_set()?;
    assert!(Dataset::inspect(&root).problems.is_empty());
    fs::write(patient.join(format!("{name}_1.tif")), "no TIFF")?;
    fs::remove_file(patient.join(format!("{name}_2.tif")))?;
    fs::write(patient.join(format!("{name}_3_mask.tif")), tiff_bytes::<colortype::Gray8>(32, 32, &[9; 1024])?)?;
    let found = Dataset::inspect(&root);
    assert_eq!((found.patients, found.slices, found.problems.len()), (3, 9, 3), "{:#?}", found.problems);
    assert_eq!(found.per_patient.iter().map(|row| row.tumour_pixels).sum::<u64>(), found.tumour_pixels);
    let json = serde_json::to_value(&found)?;
    for key in ["patients", "slices", "tumour_slices", "tumour_pixels", "problems"] {
        assert!(json.get(key).is_some(), "{key}");
    }
    Ok(())
}

#[test]
fn real_pixels_have_the_manifests_hashes() -> Outcome {
    let Some(lgg) = real("real_pixels_have_the_manifests_hashes") else {
        return Ok(());
    };
    let manifest = fs::read_to_string(lgg.join("MANIFEST.sha256"))?;
    let mut expected: HashMap<&str, &str> =
        manifest.lines().filter_map(|line| line.split_once("  ")).map(|(hash, file)| (file, hash)).collect();
    let full = read(&lgg)?;
    // Kaggle's own encoding, with the over-long last strip; two patients in one folder.
    let originals = read(&lgg.join("originals"))?;
    assert_eq!((full.patients.len(), full.slice_count()), (14, 400));
    assert_eq!((originals.patients.len(), originals.slice_count()), (2, 2));
    for set in [&full, &originals] {
        for at in set.indices() {
            let slice = set.slice(at);
            let file = slice.path.strip_prefix(&lgg)?.to_string_lossy().replace('\\', "/");
            let mask: Vec<u8> = slice.mask.iter().map(|&inside| inside * 255).collect();
            assert_eq!(expected.remove(file.as_str()), Some(hex(&slice.image).as_str()), "{file}");
            let file = file.replace(".tif", "_mask.tif");
            assert_eq!(expected.remove(file.as_str()), Some(hex(&mask).as_str()), "{file}");
        }
    }
    assert!(expected.is_empty(), "not read: {expected:?}");
    let found = Dataset::inspect(&lgg);
    assert_eq!((found.patients, found.slices, found.tumour_slices, found.tumour_pixels), (14, 400, 137, 253_036));
    assert_eq!(found.problems, Vec::<String>::new());
    Ok(())
}

// ---------------------------------------------------------------------------------------------------------------------
// Splits

#[test]
fn split_by_slice_is_scikit_learns() -> Outcome {
    for (n, count, first) in [(3929, 786, [1277, 2314, 3615, 351]), (400, 80, [373, 268, 25, 259])] {
        let set = black(&[n / 2, n - n / 2]);
        let all: Vec<_> = set.indices().collect();
        let split = Split::by_slice(&set, 0.2, 41)?;
        assert_eq!((split.val.len(), split.train.len(), split.by_patient), (count, n - count, false));
        assert_eq!(split.val[..4], first.map(|at| all[at]));
        let together: BTreeSet<_> = split.val.iter().chain(&split.train).collect();
        assert_eq!(together.len(), n);
    }
    assert!(Split::by_slice(&black(&[1]), 0.2, 0).is_err());
    assert!(Split::by_slice(&black(&[9]), 0.2, 1 << 32).is_err());
    Ok(())
}

#[test]
fn split_by_patient_keeps_patients_whole() -> Outcome {
    let set = black(&[5, 4, 3, 6, 2, 7, 1]);
    let mut sides = BTreeSet::new();
    for seed in 0..20 {
        let split = Split::by_patient(&set, 0.3, seed)?;
        assert_eq!(split, Split::by_patient(&set, 0.3, seed)?);
        assert_eq!(split.val.len() + split.train.len(), 28);
        assert_eq!(split.val_patients(&set).len(), 2);
        assert!(split.by_patient && split.val.is_sorted() && split.train.is_sorted());
        assert!(split.val.iter().all(|(patient, _)| split.train.iter().all(|(other, _)| other != patient)));
        sides.insert(split.val);
    }
    assert!(sides.len() > 5, "seeds must matter");
    for fraction in [0.001, 0.999] {
        let split = Split::by_patient(&set, fraction, 0)?;
        assert!(!split.val.is_empty() && !split.train.is_empty());
    }
    assert!(Split::by_patient(&black(&[9]), 0.2, 0).is_err());
    for fraction in [0.0, 1.0, -1.0, f64::NAN] {
        assert!(Split::by_patient(&set, fraction, 0).is_err() && Split::by_slice(&set, fraction, 0).is_err());
    }
    Ok(())
}

#[test]
fn split_by_names_lists_near_names() -> Outcome {
    let set = phantom_dataset(&SMALL)?;
    let names: Vec<String> = set.patients.iter().map(|patient| patient.name.clone()).collect();
    let split = Split::by_names(&set, &[names[1].to_lowercase(), names[1].clone()])?;
    assert_eq!(split.val, (0..4).map(|slice| (1, slice)).collect::<Vec<_>>());
    let failed =
        |names: &[String]| Split::by_names(&set, names).err().map(|error| error.to_string()).unwrap_or_default();
    let message = failed(&[names[2].replace("0003", "0033")]);
    assert!(message.contains("no patient") && message.contains(&names[2]), "{message}");
    assert!(failed(&[]).contains("no patient is named"));
    assert!(failed(&names).contains("all patients"));
    Ok(())
}

#[test]
fn split_csv_reads_back() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("split.csv");
    let mut set = black(&[5, 4, 3]);
    set.patients[1].name = "with, comma and \"quotes\"".into();
    for split in [Split::by_slice(&set, 0.4, 3)?, Split::by_patient(&set, 0.4, 3)?] {
        split.write_csv(&set, &path)?;
        assert_eq!(Split::read_csv(&set, &path)?, split);
        assert_eq!(fs::read_dir(folder.path())?.count(), 1, "no temporary file is left");
    }
    let cases = [
        ("", "first line"),
        ("patient,slice,part\nP0,1,train\n", "both parts"),
        ("patient,slice,part\nP0,1\n", "line 2"),
        ("patient,slice,part\nP0,x,train\n", "not a slice number"),
        ("patient,slice,part\nP0,9,train\n", "no slice 9"),
        ("patient,slice,part\nP9,1,train\n", "did you mean P0"),
        ("patient,slice,part\nP0,1,test\n", "neither train nor val"),
        ("patient,slice,part\nP0,1,train\nP0,1,val\n", "listed twice"),
    ];
    for (text, words) in cases {
        fs::write(&path, text)?;
        let message = Split::read_csv(&set, &path).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(message.contains(words) && message.contains("split.csv"), "{text:?}: {message}");
    }
    fs::write(&path, "patient,slice,part\r\nP0,2,val\r\n\r\nP2,1,train\r\n")?;
    let split = Split::read_csv(&set, &path)?;
    assert_eq!((split.val, split.train, split.by_patient), (vec![(0, 1)], vec![(2, 0)], true));
    assert!(Split::read_csv(&set, &folder.path().join("none.csv")).is_err());
    Ok(())
}

// ---------------------------------------------------------------------------------------------------------------------
// Normalisation

#[test]
fn normalisation_of_the_real_set_has_the_published_sums() -> Outcome {
    let Some(lgg) = real("normalisation_of_the_real_set_has_the_published_sums") else {
        return Ok(());
    };
    let set = read(&lgg)?;
    let split = Split::by_names(&set, &VALIDATION.map(str::to_owned))?;
    assert_eq!((split.train.len(), split.val.len()), (312, 88));
    let sum = |kind: Normalization, part: &[(usize, usize)]| -> Outcome<f64> {
        let mut sum = 0.0;
        for &at in part {
            let rows = kind.rescale(&set.patients[at.0], 3);
            let values = normalize_slice(&set.slice(at).image, &rows, &kind.channel_order())?;
            sum += values.into_iter().map(f64::from).sum::<f64>();
        }
        Ok(sum)
    };
    for (kind, train, val) in
        [(Normalization::Unext, -387_305.468, -110_596.474), (Normalization::Imagenet, -98_756_691.8, -28_198_450.1)]
    {
        // f32 values: each is off by up to 1e-7 of itself, all with one sign where scale or shift are rounded.
        for (part, expected) in [(&split.train, train), (&split.val, val)] {
            let found = sum(kind, part)?;
            assert!((found / expected - 1.0).abs() < 1e-6, "{kind}: {found} is not {expected}");
        }
    }
    Ok(())
}

#[test]
fn foreground_ignores_how_much_background_there_is() -> Outcome {
    let mut patient = phantom_patient(&SMALL, 1)?;
    let before = Normalization::Foreground.rescale(&patient, 3);
    let black = vec![0; patient.slices[0].image.len()];
    let mut bright = Vec::new();
    for pixel in patient.slices.iter().flat_map(|slice| slice.image.chunks_exact(3)) {
        bright.push(f64::from(before[1].apply(pixel[1])));
    }
    let images = || patient.slices.iter().map(|slice| slice.image.as_slice());
    let mean = images().flat_map(|image| image.iter().skip(1).step_by(3)).map(|byte| f64::from(*byte)).sum::<f64>();
    let level = before[1].apply((mean / bright.len() as f64).floor() as u8);
    bright.retain(|value| *value > f64::from(level));
    let mean = bright.iter().sum::<f64>() / bright.len() as f64;
    let variance = bright.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / bright.len() as f64;
    assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-4, "mean {mean}, variance {variance}");
    // A picture of nothing lowers the mean of all: what is between both means is taken in, and little is.
    let after = Normalization::Foreground.rescale_volume(images().chain([black.as_slice()]), 3);
    let clipped = Normalization::PerVolume.rescale_volume(images().chain([black.as_slice()]), 3);
    let moved = |a: &[Rescale], b: &[Rescale]| (a[1].apply(120) - b[1].apply(120)).abs();
    assert!(moved(&before, &after) < 0.5 * moved(&Normalization::PerVolume.rescale(&patient, 3), &clipped));
    // A missing sequence stored as a constant.
    for slice in &mut patient.slices {
        slice.image.chunks_exact_mut(3).for_each(|pixel| pixel[2] = 44);
    }
    assert_eq!(Normalization::Foreground.rescale(&patient, 3)[2].apply(44), 0.0);
    Ok(())
}

#[test]
fn per_volume_has_mean_0_and_variance_1() -> Outcome {
    let mut patient = phantom_patient(&SMALL, 1)?;
    for slice in &mut patient.slices {
        // A missing sequence stored as a constant.
        slice.image.chunks_exact_mut(3).for_each(|pixel| pixel[2] = 44);
    }
    let rows = Normalization::PerVolume.rescale(&patient, 3);
    let mut values = vec![Vec::new(); 3];
    for slice in &patient.slices {
        for (at, value) in normalize_slice(&slice.image, &rows, &[0, 1, 2])?.into_iter().enumerate() {
            values[at % 3].push(f64::from(value));
        }
    }
    for channel in &values[..2] {
        let mean = channel.iter().sum::<f64>() / channel.len() as f64;
        let variance = channel.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / channel.len() as f64;
        assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-4, "mean {mean}, variance {variance}");
    }
    assert!(values[2].iter().all(|&value| value == 0.0));
    assert!(
        normalize_slice(&[0; 4], &rows, &[0, 1, 2]).is_err() && normalize_slice(&[0; 3], &rows, &[0, 1, 3]).is_err()
    );
    for kind in Normalization::ALL {
        assert_eq!(kind.to_string().parse::<Normalization>()?, kind);
        assert_eq!(serde_json::to_string(&kind)?, format!("\"{kind}\""));
    }
    assert!("zscore".parse::<Normalization>().is_err());
    Ok(())
}

// ---------------------------------------------------------------------------------------------------------------------
// Phantoms

#[test]
fn phantom_is_a_function_of_its_settings() -> Outcome {
    let one = phantom_patient(&PhantomSettings { patients: 9, ..SMALL }, 1)?;
    let same = phantom_patient(&SMALL, 1)?;
    let other = phantom_patient(&PhantomSettings { seed: 6, ..SMALL }, 1)?;
    assert!(one.slices.iter().zip(&same.slices).all(|(a, b)| a.image == b.image && a.mask == b.mask));
    assert!(one.slices.iter().zip(&other.slices).all(|(a, b)| a.image != b.image));
    for settings in [
        PhantomSettings { patients: 0, ..SMALL },
        PhantomSettings { slices: 2, ..SMALL },
        PhantomSettings { size: 31, ..SMALL },
    ] {
        assert!(phantom_dataset(&settings).is_err());
    }
    let (folder, root, ..) = small_set()?;
    let before = fs::read_dir(&root)?.count();
    let again = write_phantom(folder.path(), &SMALL, &quiet);
    assert!(again.is_err_and(|error| error.to_string().contains("not overwritten")));
    assert_eq!(fs::read_dir(&root)?.count(), before);
    assert_eq!(fs::read_dir(folder.path())?.count(), 1, "no partial folder is left");
    Ok(())
}

#[test]
fn phantom_tumours_are_where_they_should_be() -> Outcome {
    for slices in [3, 4, 5, 7, 24, 40] {
        let settings = PhantomSettings { patients: 12, slices, size: 48, seed: 1 };
        let set = phantom_dataset(&settings)?;
        let mut with_tumour = 0;
        for patient in &set.patients {
            let pixels = |slice: &Slice| slice.mask.iter().map(|&inside| usize::from(inside)).sum::<usize>();
            let counts: Vec<_> = patient.slices.iter().map(pixels).collect();
            assert_eq!((counts[0], counts[slices - 1]), (0, 0), "{}: {counts:?}", patient.name);
            assert!(counts.iter().any(|&count| count > 10), "{}: {counts:?}", patient.name);
            with_tumour += counts.iter().filter(|&&count| count > 0).count();
        }
        let share = with_tumour as f64 / set.slice_count() as f64;
        assert!(slices < 7 || (0.25..0.45).contains(&share), "{slices} slices: {share}");
    }
    Ok(())
}

#[test]
fn a_threshold_fails_on_phantoms() -> Outcome {
    let set = phantom_dataset(&PhantomSettings::default())?;
    let all: Vec<_> = set.indices().collect();
    let dice = best_threshold(&set, &all);
    assert!((0.15..0.45).contains(&dice), "best threshold's volume Dice {dice}");
    Ok(())
}

#[test]
fn best_threshold_of_a_separable_volume_is_1() {
    let mut set = black(&[2, 1]);
    set.patients[0].slices[1].image[1] = 90;
    set.patients[0].slices[1].mask[0] = 1;
    assert_eq!(best_threshold(&set, &[(0, 0), (0, 1)]), 1.0);
    set.patients[0].slices[0].image[1] = 200;
    assert!((best_threshold(&set, &[(0, 0), (0, 1)]) - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!(best_threshold(&set, &[(1, 0)]), 1.0, "empty and nothing predicted");
}

// ---------------------------------------------------------------------------------------------------------------------
// Metrics

/// The folder of golden files: named by the user, the project's copy, or the shared one.
fn goldens() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = match std::env::var_os("SHADEGRAD_GOLDENS") {
        Some(named) => vec![PathBuf::from(named)],
        None => vec![here.join("kernels-tests/golden"), here.join("../shared/goldens")],
    };
    let complete = |folder: &PathBuf| ["ops.json", "ops.safetensors"].iter().all(|file| folder.join(file).is_file());
    folders.into_iter().find(complete)
}

#[test]
fn metrics_match_the_golden_cases() -> Outcome {
    let Some(folder) = goldens() else {
        let _ = writeln!(std::io::stderr(), "SKIPPED metrics_match_the_golden_cases: no ops.json");
        return Ok(());
    };
    let cases: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("ops.json"))?)?;
    let bytes = fs::read(folder.join("ops.safetensors"))?;
    let tensors = safetensors::SafeTensors::deserialize(&bytes)?;
    let floats = |name: String| -> Outcome<(usize, Vec<f32>)> {
        let tensor = tensors.tensor(&name)?;
        let values = tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        Ok((tensor.shape()[0], values.collect()))
    };
    let none = Vec::new();
    let cases = cases["metrics"].as_array().unwrap_or(&none);
    if cases.is_empty() {
        let _ = writeln!(std::io::stderr(), "SKIPPED metrics_match_the_golden_cases: ops.json has no metrics");
    }
    for case in cases {
        let name = case["case"].as_str().unwrap_or_default();
        let (slices, logits) = floats(format!("{name}/x"))?;
        let mask: Vec<u8> = floats(format!("{name}/target"))?.1.iter().map(|&t| u8::from(t > 0.5)).collect();
        let area = mask.len() / slices;
        let counts: Vec<_> =
            logits.chunks(area).zip(mask.chunks(area)).map(|(x, t)| SliceCounts::from_logits(0, x, t)).collect();
        let metrics = Metrics::new(&counts, slices, |_| "P");
        let close = |key: &str, found: f64| {
            let expected = case[key].as_f64().unwrap_or(f64::NAN);
            // The golden numbers come from f32 sums of exact counts.
            assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1e-6), "{name} {key}: {found} {expected}");
        };
        close("batch_iou", metrics.iou_batch);
        close("batch_dice", metrics.dice_batch);
        close("volume_dice", metrics.dice_volume_mean);
        close("volume_dice", metrics.dice_pooled);
        close("intersection", counts.iter().map(|slice| slice.intersection as f64).sum());
        close("union", counts.iter().map(|slice| (slice.predicted + slice.target - slice.intersection) as f64).sum());
        let expected: Vec<f64> = serde_json::from_value(case["tumour_slice_dice"].clone())?;
        let found: Vec<f64> = counts.iter().filter(|slice| slice.target > 0).map(SliceCounts::dice).collect();
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{name}: {found:?} {expected:?}");
        assert_eq!(metrics.dice_tumour_slices.is_none(), expected.is_empty());
    }
    Ok(())
}

#[test]
fn metrics_of_constant_predictions_on_the_real_set() -> Outcome {
    let Some(lgg) = real("metrics_of_constant_predictions_on_the_real_set") else {
        return Ok(());
    };
    let set = read(&lgg)?;
    let split = Split::by_names(&set, &VALIDATION.map(str::to_owned))?;
    let constant = |logit: f32| {
        let logits = vec![logit; set.height * set.width];
        let counts: Vec<_> =
            split.val.iter().map(|&at| SliceCounts::from_logits(at.0, &logits, &set.slice(at).mask)).collect();
        Metrics::new(&counts, 8, |patient| &set.patients[patient].name)
    };
    // Exactly 0 is not above 0.
    for logit in [-27.5, 0.0] {
        let nothing = constant(logit);
        assert_eq!((nothing.patients, nothing.slices, nothing.tumour_slices), (3, 88, 35));
        assert!((nothing.iou_batch - 40.0 / 88.0).abs() < 1e-6 && (nothing.dice_batch - 40.0 / 88.0).abs() < 1e-6);
        assert_eq!((nothing.predicted_pixels, nothing.dice_volume_mean, nothing.dice_pooled), (0, 0.0, 0.0));
        assert_eq!(nothing.dice_tumour_slices, Some(0.0));
        assert_eq!(nothing.dice_slices_empty_is_one, nothing.dice_predict_nothing);
        assert_eq!(nothing.per_patient.iter().map(|patient| patient.target_pixels).sum::<u64>(), 54_269);
        assert_eq!(nothing.per_patient[0].patient, VALIDATION[0]);
    }
    let everything = constant(10.0);
    assert!((everything.iou_batch - 0.009410).abs() < 5e-7 && (everything.dice_batch - 0.018444).abs() < 5e-7);
    assert_eq!(everything.empty_slices_with_false_pixels, 53);
    Ok(())
}

#[test]
fn metrics_weigh_batches_and_name_patients() -> Outcome {
    let slice = |patient, intersection, predicted, target| SliceCounts {
        patient,
        intersection,
        predicted,
        target,
        pixels: 100,
    };
    let counts = [slice(0, 5, 10, 10), slice(0, 0, 0, 0), slice(1, 0, 4, 0), slice(1, 2, 2, 2), slice(2, 0, 0, 0)];
    let metrics = Metrics::new(&counts, 2, |patient| ["a", "b", "c"][patient]);
    let batches = [(2.0, 5.0 / 15.0), (2.0, 2.0 / 6.0), (1.0, 1.0)];
    let expected = batches.iter().map(|(weight, iou)| weight * iou).sum::<f64>() / 5.0;
    assert!((metrics.iou_batch - expected).abs() < 1e-5);
    let dice: Vec<_> = metrics.per_patient.iter().map(|patient| (patient.patient.as_str(), patient.dice)).collect();
    assert_eq!(dice, [("a", 0.5), ("b", 0.5), ("c", 1.0)]);
    assert!((metrics.dice_volume_mean - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!((metrics.dice_volume_median, metrics.dice_tumour_slices), (0.5, Some(0.75)));
    assert_eq!((metrics.dice_predict_nothing, metrics.dice_slices_empty_is_one), (0.6, 0.7));
    assert_eq!((metrics.empty_slices_with_false_pixels, metrics.predicted_pixels), (1, 16));
    let json = serde_json::to_value(&metrics)?;
    for key in ["patients", "slices", "tumour_slices", "dice_volume_mean", "dice_volume_median", "dice_pooled"] {
        assert!(json[key].is_number(), "{key}");
    }
    for key in ["dice_tumour_slices", "iou_batch", "dice_batch", "dice_predict_nothing"] {
        assert!(json[key].is_number(), "{key}");
    }
    assert_eq!(json["per_patient"][1]["patient"], "b");
    assert_eq!(Metrics::new(&[], 8, |_| "").slices, 0);
    Ok(())
}

// ---------------------------------------------------------------------------------------------------------------------
// Pictures

#[test]
fn overlays_show_both_outlines() -> Outcome {
    let folder = tempfile::tempdir()?;
    let (height, width) = (20, 16);
    let rgb = vec![100; height * width * 3];
    let mut mask = vec![0; height * width];
    for y in 6..14 {
        mask[y * width + 5..y * width + 11].fill(1);
    }
    let tile = overlay(&rgb, height, width, Some(&mask), &mask)?;
    assert_eq!((tile.height, tile.width, tile.rgb.len()), (40, 32, 40 * 32 * 3));
    let count = |tile: &Tile, color: [u8; 3]| tile.rgb.chunks_exact(3).filter(|pixel| **pixel == color).count();
    // 12x16 zoomed pixels: 52 on the inside of the border, 60 on the outside.
    assert_eq!((count(&tile, TRUTH), count(&tile, PREDICTED)), (52, 60));
    let alone = overlay(&rgb, height, width, None, &mask)?;
    assert_eq!((count(&alone, TRUTH), count(&alone, PREDICTED)), (0, 60));
    assert!(overlay(&rgb, height, width, Some(&mask[1..]), &mask).is_err());

    let path = folder.path().join("overlay.png");
    write_overlay(&path, &rgb, height, width, Some(&mask), &mask)?;
    assert_eq!(image::open(&path)?.into_rgb8().into_raw(), tile.rgb);
    write_mask(&path, &mask, height, width)?;
    let grey = image::open(&path)?.into_luma8();
    assert_eq!((grey.width(), grey.height(), grey.get_pixel(5, 6)[0], grey.get_pixel(4, 6)[0]), (16, 20, 255, 0));
    write_probability(&path, &[0.0, 0.5, 1.0, f32::NAN], 2, 2)?;
    assert_eq!(image::open(&path)?.into_luma8().into_raw(), [0, 128, 255, 0]);
    assert!(write_mask(&path, &mask, height, width - 1).is_err());

    contact_sheet(&path, &[tile.clone(), tile.clone(), alone], 2)?;
    let sheet = image::open(&path)?;
    assert_eq!((sheet.width(), sheet.height()), (2 * 32 + 3 * 6, 2 * 40 + 3 * 6));
    assert!(contact_sheet(&path, &[], 2).is_err());
    assert!(write_mask(&folder.path().join("no/where.png"), &mask, height, width).is_err());
    assert_eq!(fs::read_dir(folder.path())?.count(), 1, "no temporary file is left");
    Ok(())
}
