//! Makes the book of its chapters: formulas as MathML, the bridge for the browser, the project's pictures.
//! `book/build.sh` compiles the bridge and calls this with it.

use anyhow::{Context, Result, bail, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use mdbook_driver::MDBook;
use mdbook_preprocessor::book::Book;
use mdbook_preprocessor::{Preprocessor, PreprocessorContext};
use pulldown_latex::config::DisplayMode;
use pulldown_latex::{Parser, RenderConfig, Storage, push_mathml};
use std::fs;
use std::io::Write;
use std::path::Path;
use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<()> {
    let arguments = std::env::args_os().skip(1).collect::<Vec<_>>();
    let [bridge, out] = arguments.as_slice() else { bail!("needs the compiled bridge and the folder to write to") };
    let (bridge, out) = (Path::new(bridge), Path::new(out));
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");

    let mut book = MDBook::load(project.join("book"))?;
    book.config.build.build_dir = std::path::absolute(out)?;
    book.with_preprocessor(Chapters).build()?;

    let live = out.join("live");
    let mut bindgen = Bindgen::new();
    bindgen.input_path(bridge).web(true)?.typescript(true).remove_name_section(true).out_name("bridge");
    bindgen.generate(&live)?;
    pack(&live.join("bridge_bg.wasm"), &live.join("bridge.bin"))?;
    copy(&project.join("book/live"), &live, |_| true)?;
    copy(&project.join("book/fonts"), &out.join("fonts"), |_| true)?;
    copy(&project.join("assets"), &out.join("assets"), |name| name.ends_with(".svg"))
}

/// Compresses a file, and takes it away. It has a name that no host knows, so that none unpacks it on the way.
fn pack(from: &Path, to: &Path) -> Result<()> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&fs::read(from)?)?;
    fs::write(to, packed.finish()?)?;
    Ok(fs::remove_file(from)?)
}

/// The files of one folder in another.
fn copy(from: &Path, to: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<()> {
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let file = file?;
        if file.file_name().to_str().is_some_and(&is_wanted) {
            fs::copy(file.path(), to.join(file.file_name()))?;
        }
    }
    Ok(())
}

/// What Markdown has no words for: what every section's page has, formulas, and links that lead elsewhere in a book than in a repository.
struct Chapters;

impl Preprocessor for Chapters {
    fn name(&self) -> &str {
        "chapters"
    }

    fn run(&self, _: &PreprocessorContext, mut book: Book) -> Result<Book> {
        let chapters = book.chapters().filter_map(|chapter| Some(chapter.path.as_ref()?.to_str()?.to_owned()));
        let chapters = chapters.collect::<Vec<_>>();
        let mut failed = None;
        book.for_each_chapter_mut(|chapter| {
            match parts(&chapter.content).and_then(|text| formulas(&text)).map(|text| links(&text, &chapters)) {
                Ok(content) => chapter.content = content,
                Err(error) => failed = Some(error.context(format!("in the chapter {}", chapter.name))),
            }
        });
        failed.map_or(Ok(book), Err)
    }
}

/// A line `{{part name torch}}` is what `parts/part.md` says of an example, and of the criterion in PyTorch.
fn parts(text: &str) -> Result<String> {
    let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let lines = text.lines().map(|line| {
        let Some(words) = line.strip_prefix("{{").and_then(|line| line.strip_suffix("}}")) else {
            return Ok(line.to_owned());
        };
        let mut words = words.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (part, name, torch) = (word(), word(), word());
        let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
        let part = read(&book.join(format!("parts/{part}.md")))?;
        let part = part.trim_end().replace("{name}", name).replace("{torch}", torch);
        if !part.contains("{source}") {
            return Ok(part);
        }
        let source = read(&book.join(format!("../examples/{name}.rs")))?;
        Ok(part.replace("{source}", source.trim_end()))
    });
    Ok(lines.collect::<Result<Vec<_>>>()?.join("\n"))
}

/// Blocks of the language `math`, and what stands between $` and `$, as MathML, which needs no script and no network.
fn formulas(text: &str) -> Result<String> {
    let text = between(text, "```math\n", "\n```", |latex| mathml(latex, DisplayMode::Block))?;
    between(&text, "$`", "`$", |latex| mathml(latex, DisplayMode::Inline))
}

/// The text with all that stands between two marks, and the marks, replaced.
fn between(text: &str, start: &str, end: &str, f: impl Fn(&str) -> Result<String>) -> Result<String> {
    let mut parts = text.split(start);
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (inside, rest) = part.split_once(end).with_context(|| format!("a formula that never ends: {part}"))?;
        whole += &f(inside)?;
        whole += rest;
    }
    Ok(whole)
}

fn mathml(latex: &str, display_mode: DisplayMode) -> Result<String> {
    let storage = Storage::new();
    let mut math = String::new();
    push_mathml(&mut math, Parser::new(latex, &storage), RenderConfig { display_mode, ..Default::default() })?;
    ensure!(!math.contains("merror"), "a formula that can't be read: {latex}");
    // A blank line would end the block that Markdown takes for HTML.
    Ok(math.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A link to an example, or to a heading, leads to the chapter of that name where there is one; another example's leads to
/// where the crate's sources are.
fn links(text: &str, chapters: &[String]) -> String {
    let text = chapters.iter().fold(text.to_owned(), |text, chapter| {
        let name = chapter.trim_end_matches(".md");
        let to = format!("]({chapter})");
        text.replace(&format!("](examples/{name}.rs)"), &to).replace(&format!("](#{})", name.replace('_', "-")), &to)
    });
    text.replace("](examples/", "](https://docs.rs/crate/candle-losses/latest/source/examples/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_become_mathml() -> Result<()> {
        let text = formulas("Where\n\n```math\n\\frac{d^2}{2}\n```\n\nand $`\\delta`$.")?;
        assert!(text.starts_with("Where\n\n<math") && text.contains("<mfrac>") && text.ends_with("</math>."), "{text}");
        assert_eq!(text.matches("<math").count(), 2);
        assert!(formulas("```math\n\\frac{").is_err() && formulas("$`\\nosuchthing`$").is_err());
        Ok(())
    }

    #[test]
    fn a_part_is_filled_in() -> Result<()> {
        assert_eq!(parts("a {{b}}\n")?, "a {{b}}");
        assert!(parts("{{curve huber}}")?.starts_with("<loss-curve name=\"huber\">"));
        assert!(parts("{{example huber}}")?.contains("HuberLoss { delta, reduction }"));
        assert!(parts("{{nothing huber}}").is_err() && parts("{{example nothing}}").is_err());
        Ok(())
    }

    #[test]
    fn a_link_leads_to_its_chapter() {
        let text =
            links("[a](examples/own_code.rs), [b](examples/gallery.rs), [c](#own-code)", &["own_code.md".into()]);
        assert_eq!(
            text,
            "[a](own_code.md), [b](https://docs.rs/crate/candle-losses/latest/source/examples/gallery.rs), [c](own_code.md)"
        );
    }
}
