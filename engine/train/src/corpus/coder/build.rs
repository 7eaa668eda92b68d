//! The pipeline: packages to rows. What was read of a package and what was made of a part is kept, so that a killed run goes on.

mod choose;

use std::path::{Path, PathBuf};

use inhouse_core::progress::Silent;
use inhouse_core::{ApiDoc, Error, ErrorKind, Progress, Result, docs, files};
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use rustc_hash::FxHashSet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use super::blocks::{self, CallRule, CodeBlock};
use super::card;
use super::code::Coder;
use super::config::{DataConfig, PartConfig};
use super::examples::{self, Example};
use super::held_out::HeldOut;
use super::library::{self, Shelf, stable_hash};
use super::report::{Evaluation, Manifest, Overlap, PartStatistics, Statistics};
use super::rows::{Packer, Shard, write_shard};
use super::source::{BYTES_PER_TOKEN, Chances, KINDS, Outcome, Source};
use super::tasks::{Maker, Size};
use super::tokenizer::{self, Encoder};
use crate::corpus::{SourceFile, read_folder, read_wheel};
use crate::pairs::make::{Steps, key};
use crate::pairs::{ApiTable, Benchmarks, MakeOptions, Pair, make};
use crate::sources::{Package, SourceList, fetch};

/// Of the code here: another number makes everything anew.
const VERSION: u32 = 3;
/// Documents that are made by one source of randomness.
const CHUNK: usize = 64;
/// Rows of one file.
const ROWS_PER_SHARD: usize = 32_768;
/// Texts that a tokenizer is learned from.
const TOKENIZER_TASKS: usize = 12_000;
const TOKENIZER_BLOCKS: usize = 8_000;

/// Makes the corpus that `config` asks for in its folder `out`, which holds a whole corpus or none.
///
/// # Errors
/// The configuration makes no sense; a package cannot be fetched or read; a file cannot be written; nothing is left to learn from.
pub fn build(config: &DataConfig, progress: &dyn Progress) -> Result<Manifest> {
    config.check()?;
    let pool =
        rayon::ThreadPoolBuilder::new().thread_name(|i| format!("inhouse-corpus-{i}")).build().map_err(
            |cause| Error::with_source(ErrorKind::Io, format!("cannot start threads: {cause}"), cause),
        )?;
    pool.install(|| Pipeline::new(config, progress)?.run())
}

struct Pipeline<'a> {
    config: &'a DataConfig,
    progress: &'a dyn Progress,
    list: SourceList,
    statistics: Statistics,
    overlap: Overlap,
}

impl<'a> Pipeline<'a> {
    fn new(config: &'a DataConfig, progress: &'a dyn Progress) -> Result<Self> {
        let list = match &config.sources {
            Some(path) => SourceList::read(path)?,
            None => SourceList { package: Vec::new() },
        };
        Ok(Self { config, progress, list, statistics: Statistics::default(), overlap: Overlap::default() })
    }

    fn is_left_out(&self, package: &Package) -> bool {
        self.config.left_out.contains(&package.name)
    }

    fn run(mut self) -> Result<Manifest> {
        let config = self.config;
        let benchmarks = match &config.benchmarks {
            Some(folder) => Some(Benchmarks::read(folder)?),
            None => None,
        };
        self.overlap.looked_for = benchmarks.is_some();
        self.overlap.ngram_words = crate::pairs::NGRAM_WORDS;
        let (table, pairs) = self.documentation()?;
        let rule = CallRule::new(&table, config.resolution);
        let (training, held_out) = self.chosen(self.blocks(&rule)?, &table, benchmarks.as_ref());
        let is_held_out = |library: &str| config.held_out.iter().any(|name| name == library);
        let is_left_out = |library: &str| config.left_out.iter().any(|name| name == library);
        let per_library = config.apis_per_library;
        let held_shelves = library::shelves(&table, &pairs, usize::MAX, &is_held_out);
        let mut shelves =
            library::shelves(&table, &pairs, per_library, &|name| !is_held_out(name) && !is_left_out(name));
        let kept_away: FxHashSet<&str> =
            held_shelves.iter().flat_map(|shelf| &shelf.apis).map(|api| api.description.as_str()).collect();
        for shelf in &mut shelves {
            shelf.retain(|api| {
                !kept_away.contains(api.description.as_str())
                    && benchmarks
                        .as_ref()
                        .is_none_or(|benchmarks| benchmarks.overlap(&api.description).is_none())
            });
        }
        shelves.retain(|shelf| shelf.apis.len() >= 12);
        let examples = self.chosen_examples(self.examples(&rule)?, &table, benchmarks.as_ref(), &kept_away);
        let count = |shelves: &[Shelf]| {
            shelves.iter().map(|shelf| (shelf.library.clone(), shelf.apis.len())).collect()
        };
        self.statistics.task_apis = count(&shelves);
        self.statistics.held_out_apis = count(&held_shelves);
        self.statistics.apis = table.apis().len();
        let words = library::name_words(&shelves);
        let maker = Maker::new(&shelves, &words, config.examples, false);
        let coder = Coder::new(&table, &words, config.noise, config.twins, config.examples, false);
        let with_calls: Vec<u32> =
            (0..training.len()).filter(|&i| !training[i].calls.is_empty()).map(|i| i as u32).collect();
        self.statistics.training_blocks = training.len();
        self.statistics.blocks_with_calls = with_calls.len();
        self.statistics.held_out_blocks = held_out.len();

        let weight_of = |block: &CodeBlock| {
            let stars = config.stars.get(block.library()).copied().unwrap_or_default();
            let mut apis: Vec<&str> = block.calls.iter().map(|(_, full)| full.as_str()).collect();
            apis.sort_unstable();
            apis.dedup();
            config.resampling.weight(stars, block.tests, apis.len(), block.candidates)
        };
        let partial = partial_of(&config.out);
        std::fs::create_dir_all(&partial).map_err(|cause| Error::io("create", &partial, cause))?;
        let everything = self.everything()?;
        let tokenizer = self.tokenizer(&partial, &everything, &maker, &training)?;
        let encoder = Encoder::new(tokenizer, config.tokenizer.is_none(), config.learn_given)?;
        let source = Source {
            encoder: &encoder,
            maker: &maker,
            coder: &coder,
            blocks: &training,
            examples: &examples,
            chances: Chances::new((0..training.len()).map(|i| (i, weight_of(&training[i])))),
            chances_with_calls: Chances::new(
                with_calls.iter().map(|&i| (i as usize, weight_of(&training[i as usize]))),
            ),
            coder_merges: config.merged,
            benchmarks: benchmarks.as_ref(),
        };
        let mut shards = Vec::new();
        for part in &config.part {
            shards.extend(self.part(&partial, &everything, part, &source)?);
        }
        let held = HeldOut {
            config,
            encoder: &encoder,
            shelves: &held_shelves,
            words: &words,
            blocks: &held_out,
            table: &table,
        };
        let evaluation = held.write(&partial)?;
        let mut hasher = Sha256::new();
        hasher.update(files::read_text(&partial.join("tokenizer.json"))?.as_bytes());
        for shard in shards.iter().chain(&evaluation) {
            hasher.update(format!("{} {} {}\n", shard.part, shard.file, shard.sha256).as_bytes());
        }
        let manifest = Manifest {
            version: 1,
            vocab_size: encoder.vocab_size(),
            tokenizer: "tokenizer.json".into(),
            block_tokens: config.block_tokens,
            digest: hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
            shards,
            evaluation: Evaluation {
                perplexity: "eval.safetensors".into(),
                perplexity_no_api: "eval_no_api.safetensors".into(),
                tasks: "tasks.jsonl".into(),
            },
        };
        json(&partial.join("statistics.json"), &self.statistics)?;
        json(&partial.join("overlap.json"), &self.overlap)?;
        let text = card::card(config, &self.list, &self.statistics, &self.overlap, &manifest);
        files::write_atomic(&partial.join("card.md"), |file| file.write_all(text.as_bytes()))?;
        json(&partial.join("manifest.json"), &manifest)?;
        for part in &config.part {
            std::fs::remove_file(partial.join(note_of(part))).ok();
        }
        std::fs::remove_file(partial.join(TOKENIZER_NOTE)).ok();
        replace_folder(&partial, &config.out)?;
        Ok(manifest)
    }

    /// A name for all that the parts depend on: the configuration but for its paths, and the sources.
    fn everything(&self) -> Result<String> {
        let mut config = self.config.clone();
        for path in [&mut config.cache, &mut config.out] {
            *path = PathBuf::new();
        }
        config.python.clear();
        let mut parts = vec![VERSION.to_string(), format!("{config:?}")];
        parts.extend(self.list.package.iter().map(|package| package.sha256.clone()));
        if let Some(path) = &self.config.tokenizer {
            parts.push(given_tokenizer(path)?);
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Ok(key(&parts))
    }

    /// All documented APIs, and what is said of them.
    fn documentation(&mut self) -> Result<(ApiTable, Vec<Pair>)> {
        let config = self.config;
        let wheels = config.cache.join("wheels");
        if !self.list.package.is_empty() {
            fetch(&self.list, &wheels, &config.python, self.progress)?;
        }
        let options = MakeOptions {
            wheels,
            work: config.cache.join("pairs"),
            benchmarks: config.benchmarks.clone(),
            max_pairs_per_api: 40,
            held_out: Vec::new(),
        };
        let made = make(&self.list, &options, self.progress)?;
        self.statistics.packages =
            self.list.package.iter().filter(|package| !self.is_left_out(package)).count()
                + config.folders.len();
        if config.folders.is_empty() {
            return Ok((made.table, made.pairs));
        }
        let mut apis: Vec<ApiDoc> = made.table.apis().to_vec();
        for folder in &config.folders {
            apis.extend(docs::read(folder, &docs::ReadOptions::default(), &Silent)?.apis);
        }
        Ok((ApiTable::new(apis), made.pairs))
    }

    /// The blocks of every package's code.
    fn blocks(&self, rule: &CallRule<'_>) -> Result<Vec<CodeBlock>> {
        let max_bytes = self.config.block_tokens * BYTES_PER_TOKEN;
        self.of_packages("code", "reading blocks", |files| {
            let found = files.par_iter().flat_map_iter(|file| blocks::blocks(file, rule, max_bytes));
            self.first_ones(found.collect(), |block| block)
        })
    }

    /// The examples of every package's docstrings, where a part asks for them.
    fn examples(&self, rule: &CallRule<'_>) -> Result<Vec<Example>> {
        if self.config.part.iter().all(|part| part.example == 0.0) {
            return Ok(Vec::new());
        }
        let max_bytes = self.config.block_tokens * BYTES_PER_TOKEN;
        self.of_packages("examples", "reading examples", |files| {
            self.first_ones(examples::examples(&files, rule, max_bytes), |example| &example.block)
        })
    }

    /// As many as are taken of one package, since a large one is not to drown the others, in the order of their places: what calls APIs
    /// comes first, the rest by chance.
    fn first_ones<T>(&self, mut found: Vec<T>, block: impl Fn(&T) -> &CodeBlock) -> Vec<T> {
        if found.len() > self.config.blocks_per_package {
            found.sort_by_cached_key(|item| {
                let block = block(item);
                let place = stable_hash(&[&block.path, &block.line.to_string()]);
                (block.calls.is_empty() && !place.is_multiple_of(3), place)
            });
            found.truncate(self.config.blocks_per_package);
        }
        found.sort_by(|a, b| (&block(a).path, block(a).line).cmp(&(&block(b).path, block(b).line)));
        found
    }

    /// What `of` finds in every package and folder; of a package it is kept.
    fn of_packages<T: Serialize + DeserializeOwned>(
        &self,
        kind: &str,
        doing: &str,
        of: impl Fn(Vec<SourceFile>) -> Vec<T>,
    ) -> Result<Vec<T>> {
        let config = self.config;
        let steps_folder = config.cache.join("blocks");
        let steps = Steps { work: &steps_folder };
        let max_bytes = config.block_tokens * BYTES_PER_TOKEN;
        let mut all: Vec<&str> = self.list.package.iter().map(|package| package.sha256.as_str()).collect();
        let settings = format!("{VERSION} {:?} {max_bytes} {}", config.resolution, config.blocks_per_package);
        all.push(&settings);
        let everything = key(&all);
        let mut found = Vec::new();
        self.progress.start(doing, Some((self.list.package.len() + config.folders.len()) as u64));
        for package in self.list.package.iter().filter(|package| !self.is_left_out(package)) {
            self.progress.check()?;
            let path = steps.path(kind, package, &everything);
            found.extend(steps.rows(&path, || {
                let wheel = config.cache.join("wheels").join(&package.file);
                Ok(of(read_wheel(&wheel, &package.exclude)?))
            })?);
            self.progress.advance(1);
        }
        for folder in &config.folders {
            found.extend(of(read_folder(folder)?));
            self.progress.advance(1);
        }
        self.progress.finish();
        Ok(found)
    }

    /// The tokenizer that is asked for, or one learned from tasks and code.
    fn tokenizer(
        &self,
        partial: &Path,
        everything: &str,
        maker: &Maker<'_>,
        blocks: &[CodeBlock],
    ) -> Result<Tokenizer> {
        let path = partial.join("tokenizer.json");
        let failed = |cause| Error::new(ErrorKind::InvalidData, format!("{}: {cause}", path.display()));
        if let Some(given) = &self.config.tokenizer {
            let text = given_tokenizer(given)?;
            files::write_atomic(&path, |file| file.write_all(text.as_bytes()))?;
            return Tokenizer::from_bytes(text.as_bytes()).map_err(failed);
        }
        let note = partial.join(TOKENIZER_NOTE);
        if path.exists() && files::read_text(&note).is_ok_and(|known| known == everything) {
            return Tokenizer::from_bytes(files::read_text(&path)?.as_bytes()).map_err(failed);
        }
        self.progress.start("learning tokens", None);
        let chunks: Vec<Vec<String>> = (0..TOKENIZER_TASKS / CHUNK)
            .into_par_iter()
            .map(|chunk| {
                let mut rng = rng_of(self.config, "tokenizer", chunk as u64);
                let mut texts = Vec::new();
                for _ in 0..CHUNK {
                    let task = maker.task(rng.random_range(1..4), Size::Full, &mut rng);
                    texts.extend(task.map(|task| task.document.text().to_owned()));
                }
                texts
            })
            .collect();
        let mut texts = chunks.concat();
        let mut rng = rng_of(self.config, "tokenizer blocks", 0);
        texts.extend(blocks.choose_multiple(&mut rng, TOKENIZER_BLOCKS).map(|block| block.text.clone()));
        let tokenizer = tokenizer::train(&texts, self.config.vocabulary)?;
        let text =
            tokenizer.to_string(false).map_err(|cause| Error::new(ErrorKind::Backend, cause.to_string()))?;
        files::write_atomic(&path, |file| file.write_all(text.as_bytes()))?;
        files::write_atomic(&note, |file| file.write_all(everything.as_bytes()))?;
        self.progress.finish();
        Ok(tokenizer)
    }

    /// The rows of a part, made or found made.
    fn part(
        &mut self,
        partial: &Path,
        everything: &str,
        part: &PartConfig,
        source: &Source<'_>,
    ) -> Result<Vec<Shard>> {
        let note = partial.join(note_of(part));
        if let Ok(text) = files::read_text(&note)
            && let Ok(note) = serde_json::from_str::<PartNote>(&text)
            && note.everything == everything
            && note.shards.iter().all(|shard| partial.join(&shard.file).exists())
        {
            note.removed.into_iter().for_each(|(text, problem)| self.removed(&text, problem));
            self.statistics.parts.insert(part.name.clone(), note.statistics);
            return Ok(note.shards);
        }
        let mut statistics = PartStatistics::default();
        let mut removed = Vec::new();
        let mut documents: Vec<(Vec<u16>, Vec<u8>)> = Vec::new();
        let shares = part.shares();
        let total: f64 = shares.iter().sum();
        self.progress.start(&format!("part {}", part.name), Some(part.tokens));
        for (kind, share) in KINDS.into_iter().zip(shares) {
            let wanted = (part.tokens as f64 * share / total) as u64;
            let (mut tokens, mut chunk) = (0, 0_u64);
            let width = rayon::current_num_threads() as u64 * 8;
            let mut empty = 0;
            while tokens < wanted {
                self.progress.check()?;
                let made: Vec<Vec<Outcome>> = (chunk..chunk + width)
                    .into_par_iter()
                    .map(|number| {
                        let mut rng = rng_of(self.config, &format!("{} {kind}", part.name), number);
                        (0..CHUNK)
                            .map(|_| source.document(kind, part, &mut rng))
                            .collect::<Result<Vec<Outcome>>>()
                    })
                    .collect::<Result<_>>()?;
                chunk += width;
                let before = tokens;
                for outcome in made.into_iter().flatten() {
                    if tokens >= wanted {
                        break;
                    }
                    match outcome {
                        Outcome::None => {}
                        Outcome::TooLong => statistics.too_long += 1,
                        Outcome::Overlapping(text, problem) => {
                            statistics.overlapping += 1;
                            removed.push((text, problem));
                        }
                        Outcome::Made(made) if made.tokens.len() > part.row_tokens => {
                            statistics.too_long += 1
                        }
                        Outcome::Made(made) => {
                            tokens += made.tokens.len() as u64;
                            *statistics.documents.entry(kind.to_owned()).or_default() += 1;
                            if let Some((called, noise, is_twin)) = made.code {
                                statistics.called_apis += called;
                                statistics.noise_apis += noise;
                                statistics.twins += usize::from(is_twin);
                            }
                            documents.push((made.tokens, made.weights));
                        }
                    }
                }
                self.progress.advance(tokens - before);
                empty = if tokens == before { empty + 1 } else { 0 };
                if empty > 20 {
                    self.progress.note(&format!(
                        "part {}: {kind}: nothing (more) can be made; {tokens} of {wanted} tokens",
                        part.name
                    ));
                    break;
                }
            }
            if tokens > 0 {
                statistics.tokens_by_kind.insert(kind.to_owned(), tokens);
            }
        }
        let mut rng = rng_of(self.config, &format!("{} rows", part.name), 0);
        documents.shuffle(&mut rng);
        let mut packer = Packer::new(part.row_tokens);
        for (tokens, weights) in &documents {
            packer.add(tokens, weights);
        }
        let mut rows = packer.finish();
        if rows.is_empty() {
            let what = format!("part {}: no document could be made: the sources hold too little", part.name);
            return Err(Error::new(ErrorKind::InvalidData, what));
        }
        rows.shuffle(&mut rng);
        statistics.rows = rows.len();
        statistics.tokens = rows.iter().map(|row| row.tokens.len() as u64).sum();
        let mut shards = Vec::new();
        for (i, rows) in rows.chunks(ROWS_PER_SHARD).enumerate() {
            shards.push(write_shard(
                partial,
                &part.name,
                &format!("{}-{i:04}.safetensors", part.name),
                rows,
            )?);
        }
        self.progress.finish();
        json(
            &note,
            &PartNote {
                everything: everything.to_owned(),
                shards: shards.clone(),
                statistics: statistics.clone(),
                removed: removed.clone(),
            },
        )?;
        removed.into_iter().for_each(|(text, problem)| self.removed(&text, problem));
        self.statistics.parts.insert(part.name.clone(), statistics);
        Ok(shards)
    }
}

/// The `tokenizer.json` at a path, or of a GGUF file.
fn given_tokenizer(path: &Path) -> Result<String> {
    if path.extension().is_some_and(|extension| extension == "gguf") {
        return Ok(inhouse_candle::gguf::read_tokenizer(path)?.tree.to_string());
    }
    files::read_text(path)
}

const TOKENIZER_NOTE: &str = ".tokenizer.note";

fn note_of(part: &PartConfig) -> String {
    format!(".part-{}.json", part.name)
}

/// What is kept of a part that is made, until the corpus is whole.
#[derive(Serialize, Deserialize)]
struct PartNote {
    everything: String,
    shards: Vec<Shard>,
    statistics: PartStatistics,
    removed: Vec<(String, String)>,
}

fn partial_of(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    out.with_file_name(name)
}

fn json(path: &Path, value: &impl Serialize) -> Result<()> {
    files::write_atomic(path, |file| {
        serde_json::to_writer_pretty(&mut *file, value)?;
        file.write_all(b"\n")
    })
}

/// Puts a whole folder in the place of another, which is there until then.
fn replace_folder(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        let mut name = to.file_name().unwrap_or_default().to_os_string();
        name.push(".old");
        let old = to.with_file_name(name);
        if old.exists() {
            std::fs::remove_dir_all(&old).map_err(|cause| Error::io("remove", &old, cause))?;
        }
        std::fs::rename(to, &old).map_err(|cause| Error::io("rename", to, cause))?;
        std::fs::rename(from, to).map_err(|cause| Error::io("rename", from, cause))?;
        return std::fs::remove_dir_all(&old).map_err(|cause| Error::io("remove", &old, cause));
    }
    std::fs::rename(from, to).map_err(|cause| Error::io("rename", from, cause))
}

/// The randomness of one piece of work, whatever was done before it.
pub(super) fn rng_of(config: &DataConfig, what: &str, number: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(stable_hash(&[what, &config.seed.to_string(), &number.to_string()]))
}
