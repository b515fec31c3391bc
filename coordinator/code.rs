//! Where the Python code of a node is: found as an interpreter would find it, and imported by nobody. Reads sources;
//! knows nothing of keys and of who runs them.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::manifest::{PythonSettings, nearest};

/// The code that a node calls.
#[derive(Debug)]
pub(crate) struct Call {
    /// As the manifest says it.
    pub text: String,
    /// As Python is told it: `module:name` or `/path/to/file.py:name`.
    pub target: String,
    /// Its files, with names that stay when the project moves.
    pub files: Vec<CodeFile>,
    /// Whether it is a coroutine, of which several run beside each other in one process.
    pub is_concurrent: bool,
}

/// A file of Python code.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CodeFile {
    pub label: String,
    pub path: PathBuf,
}

impl Call {
    /// The module that the function is in.
    pub fn module(&self) -> &str {
        self.target.rsplit_once(':').map_or(&self.target, |(module, _)| module)
    }
}

/// Why code was not found, and which word of the node says so.
pub(crate) struct NotFound {
    /// The place in `code`; `None`: it is what `call` says.
    pub code: Option<usize>,
    pub why: String,
}

/// Finds code.
pub(crate) struct Finder<'a> {
    settings: &'a PythonSettings,
    /// The manifest's folder.
    dir: &'a Path,
    calls: HashMap<(String, Vec<String>, PathBuf), Arc<Call>>,
    /// Texts of files that were read.
    sources: HashMap<PathBuf, Option<Arc<str>>>,
    /// What the interpreter said of modules that are in none of the folders.
    asked: HashMap<String, Result<Option<PathBuf>, String>>,
}

impl<'a> Finder<'a> {
    pub fn new(settings: &'a PythonSettings, dir: &'a Path) -> Finder<'a> {
        Finder { settings, dir, calls: HashMap::new(), sources: HashMap::new(), asked: HashMap::new() }
    }

    /// Finds what a node calls and the modules that it names besides; relative files are in `dir`.
    ///
    /// # Errors
    /// When something is not there.
    pub fn find(&mut self, call: &str, code: &[String], dir: &Path) -> Result<Arc<Call>, NotFound> {
        let key = (call.to_string(), code.to_vec(), dir.to_path_buf());
        if let Some(known) = self.calls.get(&key) {
            return Ok(known.clone());
        }
        let not_found = |code| move |why| NotFound { code, why };
        let (module, name) = call.rsplit_once(':').expect("it was checked");
        let mut files = self.files(module, dir).map_err(not_found(None))?;
        let source = self.main_source(&files);
        let is_concurrent = match &source {
            Some(source) => {
                check_defines(source, name, &files[0]).map_err(not_found(None))?;
                has_coroutine(source, name)
            }
            None => false,
        };
        for (at, module) in code.iter().enumerate() {
            files.extend(self.files(module, dir).map_err(not_found(Some(at)))?);
        }
        let module = match module.ends_with(".py") {
            true => absolute(&dir.join(module)).to_string_lossy().into_owned(),
            false => module.into(),
        };
        let mut seen = Vec::new();
        files.retain(|file| {
            !seen.contains(&file.path) && {
                seen.push(file.path.clone());
                true
            }
        });
        let target = format!("{module}:{name}");
        let found = Arc::new(Call { text: call.into(), target, files, is_concurrent });
        self.calls.insert(key, found.clone());
        Ok(found)
    }

    /// The files of a module: its own, or of a package all.
    fn files(&mut self, module: &str, dir: &Path) -> Result<Vec<CodeFile>, String> {
        if module.ends_with(".py") {
            let path = dir.join(module);
            if !path.is_file() {
                return Err(format!("there is no file {}", path.display()));
            }
            return Ok(vec![CodeFile { label: self.label(&path, module), path }]);
        }
        let parts: Vec<&str> = module.split('.').collect();
        let mut found = self.settings.path.iter().find_map(|folder| in_folder(folder, &parts));
        if found.is_none() {
            found = match self.ask(module)? {
                Some(path) => Some(path),
                // Built into the interpreter.
                None => return Ok(Vec::new()),
            };
        }
        let path = found.expect("it was found, or there was an error");
        let base = parts.join("/");
        if !path.is_dir() {
            let ending =
                path.extension().map_or(String::new(), |ending| format!(".{}", ending.to_string_lossy()));
            return Ok(vec![CodeFile { label: self.label(&path, &(base + &ending)), path }]);
        }
        let mut all = Vec::new();
        sources_below(&path, &mut all).map_err(|error| format!("read folder {}: {error}", path.display()))?;
        let main = path.join("__init__.py");
        all.sort_by_key(|file| (*file != main, file.clone()));
        let label = |file: &PathBuf| {
            let below = file.strip_prefix(&path).unwrap_or(file).to_string_lossy().into_owned();
            self.label(file, &format!("{base}/{below}"))
        };
        Ok(all.iter().map(|file| CodeFile { label: label(file), path: file.clone() }).collect())
    }

    /// The text of the file that the function should be in.
    fn main_source(&mut self, files: &[CodeFile]) -> Option<Arc<str>> {
        let first =
            files.first().filter(|file| file.path.extension().is_some_and(|ending| ending == "py"))?;
        let read = || fs::read_to_string(&first.path).ok().map(Arc::from);
        self.sources.entry(first.path.clone()).or_insert_with(read).clone()
    }

    /// What a file is called: by its place in the project, else by its module.
    fn label(&self, path: &Path, otherwise: &str) -> String {
        match absolute(path).strip_prefix(absolute(self.dir)) {
            Ok(inside) => inside.to_string_lossy().into_owned(),
            Err(_) => otherwise.into(),
        }
    }

    /// Asks the interpreter where a module is: it looks, and imports nothing.
    fn ask(&mut self, module: &str) -> Result<Option<PathBuf>, String> {
        if let Some(known) = self.asked.get(module) {
            return known.clone();
        }
        let answer = ask(self.settings, self.dir, module).and_then(|answer| {
            answer.ok_or_else(|| {
                let folders: Vec<_> = self.settings.path.iter().map(|f| f.display().to_string()).collect();
                let near = nearest(module, modules_in(&self.settings.path).iter().map(String::as_str))
                    .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                let (folders, interpreter) = (folders.join(", "), &self.settings.interpreter);
                format!("there is no module `{module}` in {folders}, nor does {interpreter} know one{near}")
            })
        });
        self.asked.insert(module.into(), answer.clone());
        answer
    }
}

/// What `python -c` runs to find a module: a file, a folder, `-` for a module without any, or nothing.
const LOOK: &str = "\
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec
name, path, spec = sys.argv[1], None, None
for at, part in enumerate(name.split('.')):
    full = '.'.join(name.split('.')[:at + 1])
    spec = PathFinder.find_spec(full, path) if at else find_spec(full)
    if spec is None:
        sys.exit(0)
    path = spec.submodule_search_locations
folders = list(spec.submodule_search_locations or [])
print(folders[0] if folders else spec.origin if spec.has_location else '-')
";

#[expect(clippy::option_option, reason = "found, found without a file, and not found")]
fn ask(settings: &PythonSettings, dir: &Path, module: &str) -> Result<Option<Option<PathBuf>>, String> {
    let interpreter = &settings.interpreter;
    let program = match interpreter.contains('/') {
        true => std::path::absolute(interpreter).unwrap_or_else(|_| interpreter.into()),
        false => interpreter.into(),
    };
    let declared: Vec<(String, String)> = settings.env.clone().into_iter().collect();
    // As the interpreter of the run will be started.
    let asked = Command::new(program)
        .args(["-c", LOOK, module])
        .current_dir(dir)
        .env_clear()
        .envs(forkyard_worker::python_environment(&declared, &[]))
        .stdin(Stdio::null())
        .output();
    let output = asked.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("there is no {interpreter} in PATH; [python] interpreter = \"/path/to/python\" names one")
        }
        _ => format!("start {interpreter}: {error}"),
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().last().unwrap_or_default();
        return Err(format!("{interpreter} cannot look for module `{module}`: {said}"));
    }
    Ok(match String::from_utf8_lossy(&output.stdout).trim() {
        "" => None,
        "-" => Some(None),
        path => Some(Some(path.into())),
    })
}

/// A module in a folder: its file, or its folder if it is a package.
fn in_folder(folder: &Path, parts: &[&str]) -> Option<PathBuf> {
    let (last, parents) = parts.split_last()?;
    let folder = parents.iter().fold(folder.to_path_buf(), |folder, part| folder.join(part));
    let package = folder.join(last);
    if package.join("__init__.py").is_file() {
        return Some(package);
    }
    let file = folder.join(format!("{last}.py"));
    if file.is_file() {
        return Some(file);
    }
    let start = format!("{last}.");
    let is_extension = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(&start) && name.ends_with(".so")
    };
    fs::read_dir(&folder).ok()?.flatten().map(|entry| entry.path()).find(is_extension)
}

fn modules_in(folders: &[PathBuf]) -> Vec<String> {
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let name = |path: PathBuf| {
        let is_package = path.join("__init__.py").is_file();
        let is_module = path.extension().is_some_and(|ending| ending == "py");
        (is_package || is_module).then(|| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()))?
    };
    entries.filter_map(|entry| name(entry.path())).collect()
}

fn sources_below(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "__pycache__") {
                sources_below(&path, found)?;
            }
        } else if path.extension().is_some_and(|ending| ending == "py" || ending == "so") {
            found.push(path);
        }
    }
    Ok(())
}

/// Whether a source defines a name as a coroutine: `async def name` at the start of a line, or in the body of its class.
fn has_coroutine(source: &str, name: &str) -> bool {
    let (class, name) = name.rsplit_once('.').unwrap_or(("", name));
    let class = class.rsplit_once('.').map_or(class, |(_, inner)| inner);
    let names = |line: &str, word: &str, name: &str| {
        let rest = line.strip_prefix(word).map(str::trim_start).and_then(|rest| rest.strip_prefix(name));
        rest.is_some_and(|rest| rest.trim_start().starts_with(['(', '[', ':']))
    };
    let mut is_inside = class.is_empty();
    source.lines().any(|line| {
        let body = line.trim_start();
        let indented = body.len() < line.len();
        if !class.is_empty() && names(body, "class ", class) {
            is_inside = true;
        } else if !class.is_empty() && !indented && !body.is_empty() && !body.starts_with('#') {
            is_inside = false;
        }
        is_inside && indented != class.is_empty() && names(body, "async def ", name)
    })
}

/// Says so if a name stands nowhere in a source, which then can hardly define it.
fn check_defines(source: &str, name: &str, file: &CodeFile) -> Result<(), String> {
    let first = name.split('.').next().unwrap_or(name);
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let stands = source.split(|c| !is_word(c)).any(|word| word == first);
    if stands || source.contains("import *") || source.contains("__getattr__") {
        return Ok(());
    }
    let functions = source.lines().filter_map(|line| {
        let rest = line.strip_prefix("async ").unwrap_or(line).strip_prefix("def ")?;
        rest.split(|c| !is_word(c)).next()
    });
    let near = nearest(first, functions).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    Err(format!("{} defines no `{first}`{near}", file.path.display()))
}

fn absolute(path: &Path) -> PathBuf {
    fs::canonicalize(path).or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coroutines_are_known_by_their_definition() {
        let source =
            "async def ask(x):\n    pass\ndef plain(x): ...\nclass A:\n    async def ask_more (self): ...\n";
        assert!(has_coroutine(source, "ask") && has_coroutine(source, "A.ask_more"));
        assert!(!has_coroutine(source, "plain") && !has_coroutine(source, "ask_more"));
        assert!(!has_coroutine(source, "as"));
    }

    #[test]
    fn a_method_is_looked_for_in_its_class() {
        let source = "class A:\n    async def run(self): ...\n\nclass B(A):\n    def run(self): ...\nasync def typed[T](x: T): ...\n";
        assert!(has_coroutine(source, "A.run") && !has_coroutine(source, "B.run"));
        assert!(has_coroutine(source, "typed"));
    }

    #[test]
    fn a_name_that_stands_nowhere_is_told_with_the_nearest() {
        let file = CodeFile { label: "s.py".into(), path: "s.py".into() };
        let source = "def score(x): ...\nfrom m import other\n";
        assert!(check_defines(source, "other", &file).is_ok());
        let why = check_defines(source, "scor", &file).unwrap_err();
        assert_eq!(why, "s.py defines no `scor`; did you mean `score`?");
    }
}
