//! The course and the ops' pages: complete, and every link to a file leads to one. What they compute is tested by
//! `cargo test --doc`.

use std::path::{Path, PathBuf};

use shadegrad::gpu::Shader;
use shadegrad::ops::SHADERS;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The module page of an op: its `//!` lines without the marks.
fn page(op: &str) -> String {
    let text = read(format!("src/ops/{op}.rs"));
    let lines = text.lines().filter_map(|line| line.strip_prefix("//!"));
    lines.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect()
}

/// What stands below a heading, up to the next one.
fn section<'a>(page: &'a str, heading: &str) -> Option<&'a str> {
    let (_, rest) = page.split_once(&format!("\n# {heading}\n"))?;
    Some(rest.split("\n# ").next().unwrap_or(rest))
}

/// Targets of the page's links that are paths, as files of the repository. Pages lie three folders below the pages of
/// all crates (`target/doc/shadegrad/ops/relu`), which have the sources' own pages (`target/doc/src`) among them.
fn linked_files(page: &str) -> Vec<PathBuf> {
    // Every second part is a block of code, whose links are not the page's.
    let prose: String = page.split("\n```").step_by(2).collect();
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let file = |target: &str| {
        if let Some(path) = target.strip_prefix("../../../../../") {
            return Some(PathBuf::from(path));
        }
        let source = target.strip_prefix("../../../src/shadegrad/")?;
        Some(Path::new("src").join(source.strip_suffix(".html").expect("a source's page ends in .html")))
    };
    targets.filter_map(file).collect()
}

#[test]
fn every_op_page_has_formulas_and_a_picture() {
    for shader in SHADERS {
        let (op, page) = (shader.name, page(shader.name));
        for heading in ["Forward", "Backward"] {
            let text = section(&page, heading).unwrap_or_else(|| panic!("src/ops/{op}.rs: no `# {heading}`"));
            let formula = text.contains('=') && text.contains('`');
            let without = heading == "Backward" && text.starts_with("No gradient: ");
            assert!(formula || without, "src/ops/{op}.rs: `# {heading}` has no formula:\n{text}");
        }
        let has_gradient = read(format!("src/ops/{op}.rs")).contains("impl Backward for ");
        let says_so = section(&page, "Backward").is_some_and(|text| !text.starts_with("No gradient: "));
        assert_eq!(has_gradient, says_so, "src/ops/{op}.rs: `# Backward` and its code disagree");
        let picture = section(&page, "Data flow").or_else(|| section(&page, "Picture of the tile"));
        let lines = picture
            .and_then(|text| text.split("```text\n").nth(1))
            .map_or(0, |text| text.split("```").next().unwrap_or_default().lines().count());
        assert!(lines >= 2, "src/ops/{op}.rs: neither `# Data flow` nor `# Picture of the tile` has a picture");
    }
}

#[test]
fn every_op_page_names_its_five_files() {
    for shader in SHADERS {
        let op = shader.name;
        let page = page(op);
        let files = section(&page, "Files").unwrap_or_else(|| panic!("src/ops/{op}.rs: no `# Files`"));
        let want = [
            format!("shaders/{op}.wgsl"),
            format!("src/ops/{op}.rs"),
            format!("src/cpu/{op}.rs"),
            format!("kernels-tests/ops/{op}.rs"),
            format!("bench/ops/{op}.rs"),
        ];
        assert_eq!(linked_files(files), want.clone().map(PathBuf::from), "src/ops/{op}.rs: `# Files`");
        for file in want {
            assert!(files.contains(&format!("[`{file}`](")), "src/ops/{op}.rs: the link is not named {file}");
        }
    }
}

/// Chapter 11 as `first_kernel` reads it: its files (path, text), and its lines for the lists (file, line before, line).
fn first_kernel() -> (Vec<(String, String)>, Vec<[String; 3]>) {
    let text = read("src/course/ch11_first_kernel.md");
    let files = text.split("\n## `").skip(1).map(|part| {
        let (path, rest) = part.split_once("`\n").expect("a heading is a path");
        let (_, block) = rest.split_once("\n```").expect("a block below the heading");
        let (_, block) = block.split_once('\n').expect("the block's language");
        (path.to_owned(), block.split("\n```\n").next().unwrap_or_default().to_owned() + "\n")
    });
    let row = |line: &str| {
        let cells: Vec<_> = line.strip_prefix("| `")?.strip_suffix("` |")?.split("` | `").map(str::to_owned).collect();
        <[String; 3]>::try_from(cells).ok()
    };
    (files.collect(), text.lines().filter_map(row).collect())
}

/// `./kernels-tests/first_kernel` compiles and runs it; this sees at once what would no longer fit.
#[test]
fn the_first_kernel_fits() {
    let (files, lines) = first_kernel();
    assert_eq!(files.len(), 5, "{files:?}");
    for (path, text) in &files {
        assert!(path.contains("/leaky_relu."), "{path}");
        // The copy that `first_kernel` makes has it.
        if root().join(path).exists() {
            assert_eq!(&read(path), text, "{path} is another file");
        }
        let beside = root().join(path.replace("leaky_relu", "relu"));
        assert!(beside.exists(), "{path} lies where no op has a file");
        if path.ends_with(".wgsl") {
            let shader = Shader { name: "leaky_relu", source: Box::leak(text.clone().into_boxed_str()) };
            shader.assemble(None, &[]).unwrap().validate().unwrap_or_else(|error| panic!("{error}"));
        }
    }
    assert!(lines.len() >= 8, "{lines:?}");
    for [path, after, _] in &lines {
        assert!(path.ends_with("/mod.rs"), "{path} is no list");
        let found = read(path).lines().filter(|line| line.trim() == after).count();
        assert_eq!(found, 1, "{path}: {after}");
    }
}

/// Chapters by number: (name, text).
fn chapters() -> Vec<(String, String)> {
    let folder = std::fs::read_dir(root().join("src/course")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter_map(|name| name.strip_suffix(".md").map(str::to_owned)).collect();
    names.sort();
    names.into_iter().map(|name| (name.clone(), read(format!("src/course/{name}.md")))).collect()
}

#[test]
fn the_chapters_are_a_book() {
    let (contents, tour) = (read("src/course/mod.rs"), read("src/lib.rs"));
    let chapters = chapters();
    for (index, (name, text)) in chapters.iter().enumerate() {
        assert!(name.starts_with(&format!("ch{:02}_", index + 1)), "{name} is out of order");
        assert!(text.starts_with(&format!("Chapter {}. ", index + 1)), "{name} begins with its number");
        assert!(contents.contains(&format!("{}. [", index + 1)) && contents.contains(&format!("]({name})")), "{name}");
        assert!(
            contents.contains(&format!("#[doc = include_str!(\"{name}.md\")]\npub mod {name} {{}}"))
                || contents.contains(&format!("#[doc = include_str!(\"{name}.md\")]\n#[doc")),
            "{name} is no module"
        );
        assert!(tour.contains(&format!("[{}](course::{name})", index + 1)), "{name} is not in the tour of lib.rs");
        for heading in ["What to know", "A program", "Files"] {
            assert!(section(text, heading).is_some(), "{name} has no `# {heading}`");
        }
        assert!(text.contains("assert"), "{name}: its program asserts nothing");
        if let Some((next, _)) = chapters.get(index + 1) {
            assert!(text.contains(&format!("(crate::course::{next})")), "{name} does not lead to {next}");
        }
    }
}

#[test]
fn links_to_files_lead_to_files() {
    let ops = SHADERS.iter().map(|shader| (shader.name.to_owned(), page(shader.name)));
    let mut links = 0;
    for (name, text) in chapters().into_iter().chain(ops) {
        for file in linked_files(&text) {
            assert!(root().join(&file).exists(), "{name} links to {}, which does not exist", file.display());
            links += 1;
        }
    }
    assert!(links > 5 * SHADERS.len(), "{links} links");
}
