//! What the store knows: images, their names, layers by chain id.
//!
//! Everything is in memory for reading; redb keeps it over restarts, one transaction per pull or
//! removal. Layers are in memory as soon as they are complete, and on disk with the image that
//! needs them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use oci_spec::image::ImageConfiguration;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

const IMAGES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("images");
const NAMES: TableDefinition<'_, &str, &str> = TableDefinition::new("names");
const LAYERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("layers");

/// Why the metadata cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// The database failed.
    #[error("image metadata: {step}: {cause}")]
    Database {
        /// What was done.
        step: &'static str,
        /// The cause.
        cause: Box<redb::Error>,
    },
    /// A record is not readable.
    #[error("image metadata: record `{key}` is malformed: {reason}")]
    Record {
        /// The record's key.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

/// An unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    /// Its directory's number.
    pub id: u64,
    pub bytes: u64,
    pub inodes: u64,
    /// Whether it hides all layers below it.
    pub opaque_root: bool,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// Digest of the configuration.
    pub id: Digest,
    pub manifest: Digest,
    /// Chain ids, bottom first.
    pub layers: Vec<Digest>,
    /// Bytes of manifest, configuration and compressed layers.
    pub size: u64,
}

/// An image with its configuration.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub record: ImageRecord,
    pub config: ImageConfiguration,
}

pub(crate) struct Metadata {
    database: Database,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    images: BTreeMap<Digest, Stored>,
    names: BTreeMap<String, Digest>,
    layers: HashMap<Digest, LayerRecord>,
    /// Layers a running pull needs, with the number of pulls.
    leases: HashMap<Digest, usize>,
    last_layer: u64,
}

impl State {
    /// The image under an exact name, an id, or a prefix of exactly one id.
    fn find(&self, name_or_id: &str) -> Option<&Stored> {
        if let Some(id) = self.names.get(name_or_id) {
            return self.images.get(id);
        }
        let hex = name_or_id.strip_prefix("sha256:").unwrap_or(name_or_id);
        let mut matches = self
            .images
            .values()
            .filter(|stored| stored.record.id.hex().starts_with(hex));
        match (matches.next(), matches.next()) {
            (Some(only), None) if hex.len() >= 3 => Some(only),
            _ => None,
        }
    }
}

fn failed<E: Into<redb::Error>>(step: &'static str) -> impl Fn(E) -> MetadataError {
    move |error| MetadataError::Database {
        step,
        cause: Box::new(error.into()),
    }
}

fn record<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, MetadataError> {
    serde_json::from_slice(bytes).map_err(|error| MetadataError::Record {
        key: key.to_owned(),
        reason: error.to_string(),
    })
}

fn digest(key: &str) -> Result<Digest, MetadataError> {
    Digest::parse(key).map_err(|error| MetadataError::Record {
        key: key.to_owned(),
        reason: error.to_string(),
    })
}

impl Metadata {
    /// Opens the database; `config` reads an image configuration, and an image without one is
    /// forgotten.
    pub fn open(
        path: &Path,
        config: impl Fn(&ImageRecord) -> Option<ImageConfiguration>,
    ) -> Result<Self, MetadataError> {
        let database = Database::create(path).map_err(failed("open"))?;
        let write = database.begin_write().map_err(failed("begin"))?;
        // Opening a table to write makes it.
        write.open_table(IMAGES).map_err(failed("open images"))?;
        write.open_table(NAMES).map_err(failed("open names"))?;
        write.open_table(LAYERS).map_err(failed("open layers"))?;
        write.commit().map_err(failed("commit"))?;
        let state = load(&database, config)?;
        Ok(Self {
            database,
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is a single insertion or removal.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn layer(&self, chain: &Digest) -> Option<LayerRecord> {
        self.state().layers.get(chain).cloned()
    }

    pub fn layers(&self) -> Vec<LayerRecord> {
        self.state().layers.values().cloned().collect()
    }

    /// A number no layer has had in this process, nor any layer of the store.
    pub fn next_layer_id(&self) -> u64 {
        let mut state = self.state();
        state.last_layer += 1;
        state.last_layer
    }

    /// Makes a complete layer known; it reaches the disk with the first image that needs it.
    pub fn add_layer(&self, chain: Digest, layer: LayerRecord) {
        self.state().layers.insert(chain, layer);
    }

    /// Forgets layers whose directories are gone, and images that need them.
    pub fn retain_layers(&self, found: &HashSet<u64>) -> Result<(), MetadataError> {
        let lost: Vec<Digest> = {
            let state = self.state();
            let lost = state
                .layers
                .iter()
                .filter(|(_, layer)| !found.contains(&layer.id));
            lost.map(|(chain, _)| chain.clone()).collect()
        };
        let broken: Vec<Digest> = {
            let state = self.state();
            let needs_lost = |stored: &&Stored| {
                stored
                    .record
                    .layers
                    .iter()
                    .any(|chain| !state.layers.contains_key(chain) || lost.contains(chain))
            };
            state
                .images
                .values()
                .filter(needs_lost)
                .map(|stored| stored.record.id.clone())
                .collect()
        };
        for id in broken {
            self.remove_image(&id)?;
        }
        self.remove_layers(&lost).map(|_| ())
    }

    pub fn find(&self, name_or_id: &str) -> Option<Stored> {
        self.state().find(name_or_id).cloned()
    }

    pub fn image(&self, id: &Digest) -> Option<Stored> {
        self.state().images.get(id).cloned()
    }

    pub fn images(&self) -> Vec<Stored> {
        self.state().images.values().cloned().collect()
    }

    /// The names of an image, sorted.
    pub fn names(&self, id: &Digest) -> Vec<String> {
        let state = self.state();
        let of = state.names.iter().filter(|(_, named)| *named == id);
        of.map(|(name, _)| name.clone()).collect()
    }

    /// Records an image, its layers, and that `names` now mean it.
    pub fn record_image(&self, stored: Stored, names: &[String]) -> Result<(), MetadataError> {
        let layers: Vec<(Digest, LayerRecord)> = {
            let state = self.state();
            let known = |chain: &Digest| Some((chain.clone(), state.layers.get(chain)?.clone()));
            stored.record.layers.iter().filter_map(known).collect()
        };
        let write = self.database.begin_write().map_err(failed("begin"))?;
        {
            let mut table = write.open_table(LAYERS).map_err(failed("open layers"))?;
            for (chain, layer) in &layers {
                let bytes = to_json(layer);
                table
                    .insert(chain.as_str(), &bytes[..])
                    .map_err(failed("record a layer"))?;
            }
            let mut table = write.open_table(IMAGES).map_err(failed("open images"))?;
            let bytes = to_json(&stored.record);
            table
                .insert(stored.record.id.as_str(), &bytes[..])
                .map_err(failed("record an image"))?;
            let mut table = write.open_table(NAMES).map_err(failed("open names"))?;
            for name in names {
                table
                    .insert(name.as_str(), stored.record.id.as_str())
                    .map_err(failed("record a name"))?;
            }
        }
        write.commit().map_err(failed("commit"))?;
        let mut state = self.state();
        for name in names {
            state.names.insert(name.clone(), stored.record.id.clone());
        }
        state.images.insert(stored.record.id.clone(), stored);
        Ok(())
    }

    /// Takes names away from whatever they mean.
    pub fn remove_names(&self, names: &[String]) -> Result<(), MetadataError> {
        let write = self.database.begin_write().map_err(failed("begin"))?;
        {
            let mut table = write.open_table(NAMES).map_err(failed("open names"))?;
            for name in names {
                table
                    .remove(name.as_str())
                    .map_err(failed("remove a name"))?;
            }
        }
        write.commit().map_err(failed("commit"))?;
        let mut state = self.state();
        for name in names {
            state.names.remove(name);
        }
        Ok(())
    }

    /// Removes an image and its names; its layers stay until collected.
    pub fn remove_image(&self, id: &Digest) -> Result<(), MetadataError> {
        self.remove_names(&self.names(id))?;
        let write = self.database.begin_write().map_err(failed("begin"))?;
        {
            let mut table = write.open_table(IMAGES).map_err(failed("open images"))?;
            table
                .remove(id.as_str())
                .map_err(failed("remove an image"))?;
        }
        write.commit().map_err(failed("commit"))?;
        self.state().images.remove(id);
        Ok(())
    }

    /// Removes layers; answers their directories' numbers.
    pub fn remove_layers(&self, chains: &[Digest]) -> Result<Vec<u64>, MetadataError> {
        if chains.is_empty() {
            return Ok(Vec::new());
        }
        let write = self.database.begin_write().map_err(failed("begin"))?;
        {
            let mut table = write.open_table(LAYERS).map_err(failed("open layers"))?;
            for chain in chains {
                table
                    .remove(chain.as_str())
                    .map_err(failed("remove a layer"))?;
            }
        }
        write.commit().map_err(failed("commit"))?;
        let mut state = self.state();
        Ok(chains
            .iter()
            .filter_map(|chain| state.layers.remove(chain))
            .map(|layer| layer.id)
            .collect())
    }

    /// Marks layers as needed by a running pull.
    pub fn lease(&self, chains: &[Digest]) {
        let mut state = self.state();
        for chain in chains {
            *state.leases.entry(chain.clone()).or_default() += 1;
        }
    }

    /// Takes such a mark back.
    pub fn release(&self, chains: &[Digest]) {
        let mut state = self.state();
        for chain in chains {
            if let Some(count) = state.leases.get_mut(chain) {
                *count -= 1;
                if *count == 0 {
                    state.leases.remove(chain);
                }
            }
        }
    }

    /// Chain ids of all layers, and of those that images and running pulls need.
    pub fn layer_references(&self) -> (Vec<Digest>, HashSet<Digest>) {
        let state = self.state();
        let by_images = state
            .images
            .values()
            .flat_map(|stored| &stored.record.layers);
        let needed = by_images.chain(state.leases.keys()).cloned().collect();
        (state.layers.keys().cloned().collect(), needed)
    }
}

fn load(
    database: &Database,
    config: impl Fn(&ImageRecord) -> Option<ImageConfiguration>,
) -> Result<State, MetadataError> {
    let mut state = State::default();
    let read = database.begin_read().map_err(failed("begin"))?;
    let images = read.open_table(IMAGES).map_err(failed("open images"))?;
    for entry in images.iter().map_err(failed("read images"))? {
        let (key, value) = entry.map_err(failed("read an image"))?;
        let image: ImageRecord = record(key.value(), value.value())?;
        if let Some(config) = config(&image) {
            state.images.insert(
                image.id.clone(),
                Stored {
                    record: image,
                    config,
                },
            );
        }
    }
    let names = read.open_table(NAMES).map_err(failed("open names"))?;
    for entry in names.iter().map_err(failed("read names"))? {
        let (name, id) = entry.map_err(failed("read a name"))?;
        let id = digest(id.value())?;
        if state.images.contains_key(&id) {
            state.names.insert(name.value().to_owned(), id);
        }
    }
    let layers = read.open_table(LAYERS).map_err(failed("open layers"))?;
    for entry in layers.iter().map_err(failed("read layers"))? {
        let (chain, value) = entry.map_err(failed("read a layer"))?;
        let layer: LayerRecord = record(chain.value(), value.value())?;
        state.last_layer = state.last_layer.max(layer.id);
        state.layers.insert(digest(chain.value())?, layer);
    }
    Ok(state)
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("records have string keys and no failing parts")
}
