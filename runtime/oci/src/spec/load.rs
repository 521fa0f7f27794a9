//! `config.json` → OCI types: bounded in size, and strict, so that a misspelt field is never
//! ignored in silence.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

use super::SpecErrors;
use super::config::{self, Field, LinuxResources, Node, Process, Spec};
use super::mount_options;

/// The largest `config.json` that is read, in bytes.
pub const MAX_SPEC_BYTES: u64 = 4 << 20;

/// What of a spec nobody knows, and was left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignored {
    /// JSON paths of unknown fields.
    pub fields: Vec<String>,
    /// Names of unknown capabilities.
    pub capabilities: Vec<String>,
    /// Options of bind mounts which the kernel passes over, after the JSON path of their list.
    pub options: Vec<String>,
    /// Relative mount destinations, taken as relative to `/`, after their JSON paths.
    pub relative: Vec<String>,
}

/// Why a spec could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be opened or read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is larger than [`MAX_SPEC_BYTES`].
    #[error("`{path}` is larger than {MAX_SPEC_BYTES} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The text is not JSON.
    #[error("`{path}` is not a valid spec")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// It is JSON, and has members that the specification does not allow.
    #[error("`{path}` is not a valid spec")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All that is wrong, each with its JSON path.
        #[source]
        source: SpecErrors,
    },
    /// A field which the specification does not know.
    #[error("`{path}`: unknown fields: {}", fields.join(", "))]
    UnknownFields {
        /// The file.
        path: PathBuf,
        /// JSON paths of the fields.
        fields: Vec<String>,
    },
}

/// The `config.json` of an engine.
#[derive(Debug)]
pub struct OfEngine {
    /// What it says.
    pub spec: Spec,
    /// What of it was ignored: runtimes "MUST NOT generate an error if they encounter an unknown
    /// property" (runtime-spec, config.md, Extensibility).
    pub ignored: Ignored,
    text: Vec<u8>,
}

impl OfEngine {
    /// A text which says what the spec says, and no more: for [`parse`].
    pub fn text(&self) -> Cow<'_, [u8]> {
        if self.ignored == Ignored::default() {
            return Cow::Borrowed(&self.text);
        }
        let text = serde_json::to_vec(&self.spec);
        Cow::Owned(text.expect("the types of a spec have names for keys and no failing writer"))
    }
}

/// Reads and parses the `config.json` of an engine, which may be newer than this program. For a
/// program that ends soon: what only the reading needs is never freed.
pub fn load_of_engine(path: &Path) -> Result<OfEngine, LoadError> {
    let text = read_bounded(path)?;
    let tree = ManuallyDrop::new(tree(&text, path)?);
    let (mut spec, mut ignored): (Spec, _) = lenient(&tree, path)?;
    for (index, mount) in spec.mounts.iter_mut().enumerate() {
        let taken = mount_options::take_parameters_of_bind(mount).into_iter();
        let taken = taken.map(|word| format!("mounts[{index}].options: {word}"));
        ignored.options.extend(taken);
        // Deprecated, and allowed (config.md, "Mounts"). An empty one is missing.
        if mount.destination.is_relative() && !mount.destination.as_os_str().is_empty() {
            let destination = mount.destination.display();
            let given = format!("mounts[{index}].destination: {destination}");
            ignored.relative.push(given);
            mount.destination = Path::new("/").join(&mount.destination);
        }
    }
    Ok(OfEngine {
        spec,
        ignored,
        text,
    })
}

/// Reads and parses the `config.json` at `path`, a file of the host.
pub fn load(path: &Path) -> Result<Spec, LoadError> {
    parse(&read_bounded(path)?, path)
}

/// Parses a spec; `path` only names it in errors.
pub fn parse(bytes: &[u8], path: &Path) -> Result<Spec, LoadError> {
    strict(bytes, path)
}

/// Parses the process object of an exec, as strictly as a spec.
pub fn parse_process(bytes: &[u8], path: &Path) -> Result<Process, LoadError> {
    strict(bytes, path)
}

/// Parses the limits of an update, as strictly as a spec.
pub fn parse_resources(bytes: &[u8], path: &Path) -> Result<LinuxResources, LoadError> {
    strict(bytes, path)
}

/// Reads and parses a file of an engine that holds a process object, as [`load_of_engine`] does.
pub fn load_process_of_engine(path: &Path) -> Result<(Process, Ignored), LoadError> {
    lenient(&tree(&read_bounded(path)?, path)?, path)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, LoadError> {
    let failed = |source| LoadError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let expected = file.metadata().map_err(failed)?.len().min(MAX_SPEC_BYTES);
    // Room for a byte beyond the end, so that one read finds the end too.
    let mut bytes = Vec::with_capacity(expected as usize + 1);
    file.take(MAX_SPEC_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_SPEC_BYTES {
        return Err(LoadError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

fn strict<T: Field>(bytes: &[u8], path: &Path) -> Result<T, LoadError> {
    let (value, ignored) = lenient(&tree(bytes, path)?, path)?;
    if ignored.fields.is_empty() {
        return Ok(value);
    }
    Err(LoadError::UnknownFields {
        path: path.to_owned(),
        fields: ignored.fields,
    })
}

fn tree<'a>(bytes: &'a [u8], path: &Path) -> Result<Node<'a>, LoadError> {
    config::tree(bytes).map_err(|source| LoadError::Parse {
        path: path.to_owned(),
        source,
    })
}

fn lenient<T: Field>(tree: &Node<'_>, path: &Path) -> Result<(T, Ignored), LoadError> {
    let (value, reader) = config::whole(tree).map_err(|source| LoadError::Invalid {
        path: path.to_owned(),
        source,
    })?;
    let ignored = Ignored {
        fields: reader.unknown,
        capabilities: reader.capabilities,
        ..Ignored::default()
    };
    Ok((value, ignored))
}
