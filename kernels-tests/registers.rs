//! What AMD's cards would make of every kernel, on a machine without one: Mesa's driver RADV compiles for a card that is
//! only named. An array that does not fit into registers goes to memory, which is slow and shows in no result.
//!
//! | variable | what | otherwise |
//! | --- | --- | --- |
//! | `SHADEGRAD_RADV` | path of the driver's description | `radeon_icd*.json` in `/usr/share/vulkan/icd.d/` |
//! | `SHADEGRAD_RADV_FAMILY` | the card: `navi21`, `gfx1201`, `vega20`, `polaris10`, ... | `navi31` (RX 7900) |
//!
//! All figures of the driver are in `target/portability/registers-FAMILY.jsonl`, a line for each entry point.

#![allow(
    unsafe_code,
    reason = "every call of Vulkan is; wgpu does not tell what a driver's compiler says of a pipeline"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use ash::{ext, khr, vk};
use rspirv::dr::Operand;
use rspirv::spirv::{Decoration, Op, StorageClass};
use serde::{Deserialize, Serialize};
use shadegrad::gpu::translate::Translator;
use shadegrad::gpu::{Form, Matrix};

use crate::translations::{Variant, is_for_matrix, not_checked, text, tool, variants};

/// Entry points that need more registers than an AMD card has: variant (its f16 form too), entry point, why it stays.
/// One that no longer does fails the test.
const KNOWN: [(&str, &str, &str); 4] = [
    (
        "conv2d_few",
        "forward_statistics_v6",
        "9 taps of 3 channels for 8 outputs are 216 weights, and there are sums beside them",
    ),
    ("conv2d_few.IN_C=4", "forward_v6", "288 weights for 256 registers; TILE_N=1 fits"),
    ("conv2d_few.IN_C=4", "forward_statistics_v6", "288 weights for 256 registers; TILE_N=1 fits"),
    ("conv2d_few.IN_C=4", "backward_weight_v4", "288 sums for 256 registers; TILE_N=1 fits"),
];

/// What the driver calls its figures.
const SCRATCH: &str = "Scratch size";
const SPILLED: [&str; 2] = ["Spilled VGPRs", "Spilled SGPRs"];
const OCCUPANCY: &str = "Subgroups per SIMD";

/// One entry point of one variant, compiled.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    card: String,
    variant: String,
    entry: String,
    /// Invocations that run in step.
    subgroup: u64,
    /// What the driver says, by its names; bytes are those of a subgroup.
    #[serde(flatten)]
    figures: BTreeMap<String, u64>,
}

impl Row {
    fn figure(&self, name: &str) -> u64 {
        *self.figures.get(name).unwrap_or_else(|| panic!("the driver tells no {name:?}: {self:?}"))
    }

    fn in_memory(&self) -> bool {
        self.figure(SCRATCH) > 0 || SPILLED.iter().any(|name| self.figure(name) > 0)
    }

    /// As in [`KNOWN`].
    fn key(&self) -> (&str, &str) {
        (self.variant.strip_suffix(".f16").unwrap_or(&self.variant), &self.entry)
    }
}

/// The file that the test's second process writes.
const WRITES: &str = "SHADEGRAD_RADV_WRITES";

/// The loader reads its variables once, and other tests want another driver: a process of its own compiles.
#[test]
fn amd_keeps_every_kernel_in_registers() {
    if let Some(file) = std::env::var_os(WRITES) {
        return compile_all(Path::new(&file));
    }
    let named = ["SHADEGRAD_RADV", "SHADEGRAD_RADV_FAMILY"].iter().any(|name| std::env::var_os(name).is_some());
    let Some(driver) = tool("SHADEGRAD_RADV", "radeon_icd.json").or_else(installed) else {
        return not_checked("registers of AMD cards by Mesa's driver; ./kernels-tests/portability fetches it");
    };
    let family = std::env::var("SHADEGRAD_RADV_FAMILY").unwrap_or_else(|_| "navi31".to_owned());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/portability");
    let file = folder.join(format!("registers-{family}.jsonl"));
    std::fs::create_dir_all(&folder).unwrap();
    let _ = std::fs::remove_file(&file);
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["registers::amd_keeps_every_kernel_in_registers", "--exact", "--nocapture"])
        .env("RADV_FORCE_FAMILY", &family)
        .env("VK_DRIVER_FILES", &driver)
        .env("VK_ICD_FILENAMES", &driver) // its name for older loaders
        .env(WRITES, &file)
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let said = text(&done.stderr);
    // The second is what a Mesa says that is older than the card.
    if let Some(why) = said.lines().find(|line| line.starts_with(CANNOT) || line.contains("Unknown family")) {
        assert!(!named, "{}: {why}", driver.display());
        return not_checked(&format!("registers of AMD cards: {why}"));
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    let last = written.lines().last().unwrap_or("none");
    assert!(done.status.success(), "{}: {said}\nThe last that was compiled: {last}", done.status);
    judge(&written.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Row>>());
    println!("all figures: {}", file.display());
}

/// The driver of this system, not its twin for 32-bit programs.
fn installed() -> Option<PathBuf> {
    let files = std::fs::read_dir("/usr/share/vulkan/icd.d").ok()?.flatten().map(|file| file.path());
    files.into_iter().find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("radeon_icd") && !name.contains("i686")
    })
}

/// Prints the entry points of which a card has the fewest subgroups at a time; fails if one keeps numbers in memory.
fn judge(rows: &[Row]) {
    const SHOWN: usize = 20;
    assert!(rows.len() > 100, "{}", rows.len());
    // The worst variant of each entry point; of equals the plainest.
    let mut worst = BTreeMap::<(&str, &str), &Row>::new();
    for row in rows {
        let shader = row.variant.split('.').next().unwrap_or_default();
        let so_far = worst.entry((shader, &row.entry)).or_insert(row);
        let rank = |row: &Row| (row.figure(OCCUPANCY), row.variant.len());
        if rank(row) < rank(so_far) {
            *so_far = row;
        }
    }
    let mut worst: Vec<_> = worst.into_values().collect();
    worst.sort_by_key(|row| row.figure(OCCUPANCY));
    println!(
        "Fewest subgroups per SIMD, as the driver counts (since RDNA one of 64 counts twice: 32 are most), and bytes:"
    );
    println!("subgroups  VGPRs  workgroup memory  scratch  entry point");
    for row in worst.iter().take(SHOWN) {
        let [vgprs, shared] = ["VGPRs", "LDS size"].map(|name| row.figure(name));
        let (subgroups, scratch) = (row.figure(OCCUPANCY), row.figure(SCRATCH));
        println!("{subgroups:9}  {vgprs:5}  {shared:16}  {scratch:7}  {}.{}", row.variant, row.entry);
    }

    let in_memory: BTreeSet<_> = rows.iter().filter(|row| row.in_memory()).map(Row::key).collect();
    let known: BTreeSet<_> = KNOWN.iter().map(|(variant, entry, _)| (*variant, *entry)).collect();
    let new: Vec<_> = rows.iter().filter(|row| row.in_memory() && !known.contains(&row.key())).collect();
    assert!(new.is_empty(), "{} use memory for want of registers: {new:#?}", new.len());
    let healed: Vec<_> = known.difference(&in_memory).collect();
    assert!(healed.is_empty(), "these fit into registers now, so they are no longer exceptions: {healed:?}");
    let card = &rows[0].card;
    println!("{} variants of entry points in registers, but for {} known: {card}", rows.len(), known.len());
}

/// What the second process says where there is no card to compile for.
const CANNOT: &str = "no card: ";

/// In the second process: compiles each entry point of each variant that the card can run. A line is written as soon as it is
/// known, so that a driver that crashes has told where.
fn compile_all(file: &Path) {
    let card = match Card::open() {
        Ok(card) => card,
        Err(error) => return eprintln!("\n{CANNOT}{error}"),
    };
    let mut file = std::fs::File::create(file).unwrap();
    let mut failed = Vec::new();
    for variant in variants().into_iter().filter(|variant| card.can_run(variant)) {
        let translator = Translator::new(&variant.text, true).unwrap().robust_driver();
        for entry in variant.entries(&translator) {
            if is_for_matrix(entry) && !variant.matrix().is_some_and(Matrix::needs_units) {
                continue; // what stands in for units is for checks
            }
            match card.compile(&translator.spirv(entry).unwrap(), entry) {
                Ok((subgroup, figures)) => {
                    let (card, variant, entry) = (card.name.clone(), variant.name.clone(), entry.to_owned());
                    let row = Row { card, variant, entry, subgroup, figures };
                    writeln!(file, "{}", serde_json::to_string(&row).unwrap()).unwrap();
                }
                Err(error) => failed.push(format!("{}.{entry}: {error}", variant.name)),
            }
        }
    }
    assert!(failed.is_empty(), "{} do not compile:\n{}", failed.len(), failed.join("\n"));
}

/// A card of the driver, open until the process ends.
struct Card {
    name: String,
    device: ash::Device,
    figures: khr::pipeline_executable_properties::Device,
    half: bool,
    units: bool,
    /// The loader's library must outlive the device.
    _entry: ash::Entry,
}

impl Card {
    /// The first card, with what wgpu switches on as far as it changes what is compiled.
    fn open() -> Result<Self, String> {
        // SAFETY: the system's own loader, which nothing replaces while the process runs.
        let entry = unsafe { ash::Entry::load() }.map_err(|error| error.to_string())?;
        Self::of(entry).map_err(|error| error.to_string())?.ok_or_else(|| "the driver lists none".to_owned())
    }

    fn of(entry: ash::Entry) -> Result<Option<Self>, vk::Result> {
        let program = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let asked = vk::InstanceCreateInfo::default().application_info(&program);
        // SAFETY: what `asked` points to lives on; `entry` is kept as long as what is made from it.
        let instance = unsafe { entry.create_instance(&asked, None) }?;
        // SAFETY: `instance` is never destroyed, and lists the cards that it is asked about.
        let Some(&card) = unsafe { instance.enumerate_physical_devices() }?.first() else { return Ok(None) };

        let (mut since_1_1, mut since_1_2) =
            (vk::PhysicalDeviceVulkan11Features::default(), vk::PhysicalDeviceVulkan12Features::default());
        let mut offered = vk::PhysicalDeviceFeatures2::default().push_next(&mut since_1_1).push_next(&mut since_1_2);
        // SAFETY: as above; the structures of `offered` are those of Vulkan 1.3 that their tags say.
        let (properties, extensions) = unsafe {
            instance.get_physical_device_features2(card, &mut offered);
            (instance.get_physical_device_properties(card), instance.enumerate_device_extension_properties(card)?)
        };
        let has = |name: &CStr| extensions.iter().any(|extension| extension.extension_name_as_c_str() == Ok(name));
        let half = since_1_2.shader_float16 == vk::TRUE && since_1_1.storage_buffer16_bit_access == vk::TRUE;
        let units = has(khr::cooperative_matrix::NAME);

        let mut since_1_1 = vk::PhysicalDeviceVulkan11Features::default().storage_buffer16_bit_access(half);
        let mut since_1_2 =
            vk::PhysicalDeviceVulkan12Features::default().shader_float16(half).vulkan_memory_model(units);
        let mut since_1_3 = vk::PhysicalDeviceVulkan13Features::default().subgroup_size_control(true);
        let mut robust = vk::PhysicalDeviceRobustness2FeaturesEXT::default().robust_buffer_access2(true);
        let mut tells =
            vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default().pipeline_executable_info(true);
        let mut matrices = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default().cooperative_matrix(true);
        let mut names = vec![khr::pipeline_executable_properties::NAME.as_ptr(), ext::robustness2::NAME.as_ptr()];
        let usual = vk::PhysicalDeviceFeatures::default().robust_buffer_access(true);
        let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
        let mut asked = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_features(&usual)
            .push_next(&mut since_1_1)
            .push_next(&mut since_1_2)
            .push_next(&mut since_1_3)
            .push_next(&mut robust)
            .push_next(&mut tells);
        if units {
            names.push(khr::cooperative_matrix::NAME.as_ptr());
            asked = asked.push_next(&mut matrices);
        }
        // SAFETY: what `asked` points to lives on; the driver refuses what it lacks.
        let device = unsafe { instance.create_device(card, &asked.enabled_extension_names(&names), None) }?;
        let figures = khr::pipeline_executable_properties::Device::new(&instance, &device);
        let version = properties.driver_version;
        let [major, minor] = [vk::api_version_major(version), vk::api_version_minor(version)];
        let name = format!("{}, Mesa {major}.{minor}", words_of(properties.device_name_as_c_str()));
        Ok(Some(Self { name, device, figures, half, units, _entry: entry }))
    }

    fn can_run(&self, variant: &Variant) -> bool {
        (variant.form == Form::F32 || self.half) && (self.units || !variant.matrix().is_some_and(Matrix::needs_units))
    }

    /// Makes a pipeline; returns how many invocations run in step, and the driver's figures.
    fn compile(&self, words: &[u32], entry: &str) -> Result<(u64, BTreeMap<String, u64>), vk::Result> {
        let (device, entry) = (&self.device, CString::new(entry).unwrap());
        let bindings = bindings(words);
        // SAFETY: naga has written valid words, and the layout has all bindings that they name. Nothing is destroyed before it
        // was used for the last time, and all of it belongs to `device`.
        unsafe {
            let module = device.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(words), None)?;
            let set = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            let sets = [device.create_descriptor_set_layout(&set, None)?];
            let layout =
                device.create_pipeline_layout(&vk::PipelineLayoutCreateInfo::default().set_layouts(&sets), None)?;
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE) // as wgpu, for devices with subgroups
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(module)
                .name(&entry);
            let asked = vk::ComputePipelineCreateInfo::default()
                .flags(vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR)
                .layout(layout)
                .stage(stage);
            let made = device.create_compute_pipelines(vk::PipelineCache::null(), &[asked], None);
            let pipeline = made.map_err(|(_, error)| error)?[0];
            let properties =
                self.figures.get_pipeline_executable_properties(&vk::PipelineInfoKHR::default().pipeline(pipeline))?;
            let first = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline); // a compute pipeline has one
            let figures = self.figures.get_pipeline_executable_statistics(&first)?;
            device.destroy_pipeline(pipeline, None);
            device.destroy_pipeline_layout(layout, None);
            device.destroy_descriptor_set_layout(sets[0], None);
            device.destroy_shader_module(module, None);
            let whole = |figure: &&vk::PipelineExecutableStatisticKHR<'_>| {
                figure.format == vk::PipelineExecutableStatisticFormatKHR::UINT64
            };
            let figures =
                figures.iter().filter(whole).map(|figure| (words_of(figure.name_as_c_str()), figure.value.u64));
            Ok((properties[0].subgroup_size.into(), figures.collect()))
        }
    }
}

/// The buffers that a SPIR-V module binds; all are of group 0.
fn bindings(words: &[u32]) -> Vec<vk::DescriptorSetLayoutBinding<'static>> {
    let module = rspirv::dr::load_words(words).unwrap();
    let mut numbers = BTreeMap::new();
    for decoration in &module.annotations {
        if let [Operand::IdRef(of), Operand::Decoration(Decoration::Binding), Operand::LiteralBit32(number)] =
            decoration.operands[..]
        {
            numbers.insert(of, number);
        }
    }
    let variables = module.types_global_values.iter().filter(|value| value.class.opcode == Op::Variable);
    let bound = variables.filter_map(|variable| {
        let kind = match variable.operands.first()? {
            Operand::StorageClass(StorageClass::Uniform) => vk::DescriptorType::UNIFORM_BUFFER,
            Operand::StorageClass(StorageClass::StorageBuffer) => vk::DescriptorType::STORAGE_BUFFER,
            _ => return None,
        };
        let binding = vk::DescriptorSetLayoutBinding::default().binding(*numbers.get(&variable.result_id?)?);
        Some(binding.descriptor_type(kind).descriptor_count(1).stage_flags(vk::ShaderStageFlags::COMPUTE))
    });
    bound.collect()
}

/// A name that the driver gives.
fn words_of(name: Result<&CStr, std::ffi::FromBytesUntilNulError>) -> String {
    name.expect("the driver ends its names with a zero").to_string_lossy().into_owned()
}
