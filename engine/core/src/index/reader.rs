//! The open index.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dense::QueryCode;
use super::fusion::{self, Confidence, Scale};
use super::large::{self, Sample, Words};
use super::manifest::{FORMAT_VERSION, MANIFEST, Manifest};
use super::ranker::{self, Asked, Share};
use super::ranking::{Corpus, Place, Scored, found, query_terms};
use super::records::Records;
use super::segment::Segment;
use super::twins::{self, Offer};
use super::usage::Usage;
use super::{
    ApiId, Candidate, EncoderEntry, Explanation, Hit, IndexInfo, MAX_ALSO, MAX_QUERY_BYTES, Query,
    UsageLedger, UsageSummary,
};
use crate::encode::TextEncoder;
use crate::{ApiDoc, Error, ErrorKind, Result};

/// An index opened for reading. It keeps answering from what it opened, whatever writers do to the folder meanwhile;
/// [`Index::refresh`] gives the newer one. May be shared by threads.
pub struct Index {
    dir: PathBuf,
    manifest: Manifest,
    segments: Vec<Segment>,
    corpus: Corpus,
    sample: Sample,
    libraries: BTreeMap<String, usize>,
    live: usize,
    encoder: Option<Arc<dyn TextEncoder>>,
    usage: Option<Usage>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index")
            .field("dir", &self.dir)
            .field("manifest", &self.manifest)
            .finish_non_exhaustive()
    }
}

/// A writer may remove files between our reading of the manifest and of the files; then the next manifest is there
/// already. Only a writer that commits faster than we open could make us try more often.
const ATTEMPTS: usize = 16;

/// What a search found by words and vectors.
struct Found {
    terms: BTreeMap<String, f32>,
    vector: Option<Vec<f32>>,
    found: Vec<Scored>,
    scale: Scale,
}

/// All that is known of what was found for one query.
struct Known<'i> {
    index: &'i Index,
    scale: &'i Scale,
    code: Option<QueryCode>,
    asked: Option<Asked<'i>>,
}

impl<'i> Known<'i> {
    fn new(
        index: &'i Index,
        query: &Query,
        terms: &BTreeMap<String, f32>,
        vector: Option<&[f32]>,
        scale: &'i Scale,
    ) -> Result<Self> {
        let asked = index.usage.as_ref().map(|usage| Asked::new(usage, &query.text, terms)).transpose()?;
        Ok(Self { index, scale, code: vector.map(QueryCode::of).transpose()?, asked })
    }

    /// What each signal adds to the score of a record.
    fn shares(&self, scored: &Scored) -> Result<Vec<Share>> {
        let segments = &self.index.segments;
        let dense = segments[scored.place.segment].dense.as_ref();
        let by_vector = match (dense, &self.code) {
            (Some(dense), Some(code)) => Some(dense.score(code, scored.place.doc)?),
            _ => None,
        };
        let parts = self.scale.parts(scored.score, by_vector);
        match &self.asked {
            Some(asked) => asked.shares(segments, scored, &parts),
            None => Ok(ranker::of_parts(&parts, self.code.is_some())),
        }
    }
}

/// Whoever wants more hits than this has every record looked at.
const MOST_OF_LARGE: usize = 100;

impl Index {
    /// Opens the index in the folder `dir`.
    ///
    /// Lengths of files are checked here, and so are the parts that every search reads; the rest is checked against its
    /// checksums when it is first read.
    ///
    /// # Errors
    /// There is no index ([`ErrorKind::NotFound`]), it is of another version ([`ErrorKind::UnsupportedVersion`]), or a
    /// file is missing, truncated or corrupted ([`ErrorKind::InvalidData`], naming the file).
    pub fn open(dir: &Path) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let manifest = Manifest::read(dir)?;
            let generation = manifest.generation;
            match Self::open_manifest(dir, manifest) {
                Err(error) if attempt < ATTEMPTS && Manifest::read(dir)?.generation != generation => {
                    tracing::debug!("the index changed while it was opened, once more: {error}");
                    attempt += 1;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let what = format!("{error}; the manifest names this file (build the index again)");
                    return Err(Error::with_source(ErrorKind::InvalidData, what, error));
                }
                result => return result,
            }
        }
    }

    fn open_manifest(dir: &Path, manifest: Manifest) -> Result<Self> {
        let dim = manifest.encoder.as_ref().map(|encoder| encoder.dim);
        let open = |entry| Segment::open(dir, entry, dim);
        let mut segments = manifest.segments.iter().map(open).collect::<Result<Vec<_>>>()?;
        // the largest first: names of the small ones are looked up in the large ones, not the other way round
        segments.sort_by_key(|segment| std::cmp::Reverse(segment.docs()));
        let corpus = Corpus::new(&segments)?;
        let sample = Sample::new(&corpus, &segments);
        let mut libraries = BTreeMap::new();
        for segment in &segments {
            let names = segment.records.libraries()?;
            let mut counts = vec![0usize; names.len()];
            for (doc, library) in segment.records.library_of_docs()?.enumerate() {
                let count = counts.get_mut(library).ok_or_else(|| {
                    Error::data(
                        dir,
                        format!("corrupted: record {doc} is of no library (build the index again)"),
                    )
                })?;
                *count += usize::from(!segment.deleted.contains(doc));
            }
            for (name, count) in names.into_iter().zip(counts).filter(|(_, count)| *count > 0) {
                *libraries.entry(name.to_owned()).or_default() += count;
            }
        }
        let live = libraries.values().sum();
        let usage = manifest.usage.as_ref().map(|entry| Usage::open(dir, entry)).transpose()?;
        let dir = dir.to_owned();
        Ok(Self { dir, manifest, segments, corpus, sample, libraries, live, encoder: None, usage })
    }

    /// The index as it is in the folder now; `None` where it has not changed since this one was opened.
    ///
    /// # Errors
    /// As [`Index::open`].
    pub fn refresh(&self) -> Result<Option<Self>> {
        if Manifest::read(&self.dir)? == self.manifest {
            return Ok(None);
        }
        let mut fresh = Self::open(&self.dir)?;
        if let (Some(encoder), Some(entry)) = (&self.encoder, &fresh.manifest.encoder)
            && entry.matches(encoder.info())
        {
            fresh.encoder = Some(Arc::clone(encoder));
        }
        Ok(Some(fresh))
    }

    /// The encoder that the index was built with, where it was built with one: what [`Index::with_encoder`] needs.
    pub fn encoder(&self) -> Option<&EncoderEntry> {
        self.manifest.encoder.as_ref()
    }

    /// The encoder that it is searched with, after [`Index::with_encoder`].
    pub fn loaded_encoder(&self) -> Option<&Arc<dyn TextEncoder>> {
        self.encoder.as_ref()
    }

    /// The index with its encoder: from now on it is searched by vectors too. Without it, it is searched by words alone.
    ///
    /// # Errors
    /// The index has no vectors, or another encoder's ([`ErrorKind::InvalidArgument`]).
    pub fn with_encoder(mut self, encoder: Arc<dyn TextEncoder>) -> Result<Self> {
        let what = match &self.manifest.encoder {
            Some(entry) if entry.matches(encoder.info()) => {
                self.encoder = Some(encoder);
                return Ok(self);
            }
            Some(entry) => format!(
                "was built with the encoder {} ({}), {} is another (its fingerprint differs)",
                entry.name,
                entry.path.display(),
                encoder.info().name
            ),
            None => "was built without an encoder; build it again with one".into(),
        };
        Err(Error::new(ErrorKind::InvalidArgument, format!("{}: {what}", self.dir.display())))
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Facts about it.
    pub fn info(&self) -> IndexInfo {
        IndexInfo {
            path: self.dir.clone(),
            format_version: FORMAT_VERSION,
            generation: self.manifest.generation,
            apis: self.live,
            names: self.corpus.n_names(),
            libraries: self.libraries.clone(),
            segments: self.segments.len(),
            deleted: self.segments.iter().map(|segment| segment.deleted.len()).sum(),
            bytes: self.manifest.entries().map(|entry| entry.bytes).sum::<u64>()
                + std::fs::metadata(self.dir.join(MANIFEST)).map_or(0, |meta| meta.len()),
            encoder: self.manifest.encoder.clone(),
            weights: self.manifest.weights,
            names_used: self.usage.as_ref().map(Usage::n_names),
        }
    }

    /// How code uses the APIs of a bare name; `None` where the index does not know of any use.
    ///
    /// # Errors
    /// A part of the file that is read for the first time turns out to be corrupted.
    pub fn usage_of(&self, name: &str) -> Result<Option<UsageSummary>> {
        let Some(usage) = &self.usage else { return Ok(None) };
        usage.find(name)?.map(|i| usage.summary(i)).transpose()
    }

    /// All usage that the index knows, by file of code: what [`crate::usage::read`] goes on from.
    ///
    /// # Errors
    /// As [`Index::usage_of`].
    pub fn usage_ledger(&self) -> Result<Option<UsageLedger>> {
        self.usage.as_ref().map(Usage::ledger).transpose()
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether there is no record (an update may remove all).
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// The `k` API names that answer `query` best, best first. Records of the same bare name are one hit: the best of
    /// them, with the others in [`Hit::also`]. So are a class and the function or method with the class's very description,
    /// by the function's name, where both are found among the best. Without an encoder, fewer than `k` where fewer share a word with the query. The same index
    /// and query always give the same hits; equal scores are ordered by name.
    ///
    /// # Errors
    /// The query is empty or longer than [`MAX_QUERY_BYTES`], `k` is 0, or a part of a file that is read for the first
    /// time turns out to be corrupted.
    pub fn search(&self, query: &Query, k: usize) -> Result<Vec<Hit>> {
        let (offers, _, confidence) = self.offers(query, k)?;
        (1..).zip(offers).map(|(rank, offer)| self.hit(rank, offer, &confidence)).collect()
    }

    /// What [`Index::search`] finds, with what each signal adds to the score of a hit, and the usage that it rests on.
    ///
    /// # Errors
    /// As [`Index::search`].
    pub fn explain(&self, query: &Query, k: usize) -> Result<Vec<Explanation>> {
        let (offers, shares, confidence) = self.offers(query, k)?;
        let explained = |(rank, offer): (usize, Offer)| {
            let of_score = |(score, _): &&(f32, Vec<Share>)| *score == offer.scored.score;
            let shares = shares.iter().find(of_score).map(|(_, shares)| shares.clone()).unwrap_or_default();
            let usage = self.usage_of(&offer.api.name)?;
            Ok(Explanation { hit: self.hit(rank, offer, &confidence)?, shares, usage })
        };
        (1..).zip(offers).map(explained).collect()
    }

    /// What each signal says of the best names by words and vectors, in their order: what the ranker's weights are learned from. The
    /// same candidates and values whatever the weights are; a class and the function with its description both stand there.
    ///
    /// # Errors
    /// As [`Index::search`].
    pub fn candidates(&self, query: &Query) -> Result<Vec<Candidate>> {
        let Found { terms, vector, found, scale } = self.found(query, 1, ranker::POOL)?;
        let known = Known::new(self, query, &terms, vector.as_deref(), &scale)?;
        let candidate = |scored: &Scored| {
            let api = self.segments[scored.place.segment].records.api(scored.place.doc)?;
            Ok(Candidate { api, shares: known.shares(scored)? })
        };
        found.iter().map(candidate).collect()
    }

    /// The best `pool` names by words and vectors.
    fn found(&self, query: &Query, k: usize, pool: usize) -> Result<Found> {
        if query.text.trim().is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, "the query is empty"));
        }
        if query.text.len() > MAX_QUERY_BYTES {
            let what = format!("the query has {} bytes, the limit is {MAX_QUERY_BYTES}", query.text.len());
            return Err(Error::new(ErrorKind::LimitExceeded, what));
        }
        if k == 0 {
            return Err(Error::new(ErrorKind::InvalidArgument, "k is 0, expected at least 1"));
        }
        let terms = query_terms(&query.text);
        let vector = self.encoder.as_ref().map(|encoder| fusion::vector_of(encoder.as_ref(), &query.text));
        let vector = vector.transpose()?;
        let (found, scale) = match k <= MOST_OF_LARGE && self.is_large(vector.is_some()) {
            true => self.search_large(&terms, vector.as_deref(), pool)?,
            false => self.search_all(&terms, vector.as_deref(), pool)?,
        };
        Ok(Found { terms, vector, found, scale })
    }

    /// What is offered for a query, best first, the shares behind each score, and what scores say.
    #[expect(clippy::type_complexity, reason = "the parts of one answer, for two callers")]
    fn offers(&self, query: &Query, k: usize) -> Result<(Vec<Offer>, Vec<(f32, Vec<Share>)>, Confidence)> {
        let names = twins::names_to_rank(k);
        let pool = if self.usage.is_some() { names.max(ranker::POOL) } else { names };
        let Found { terms, vector, found, scale } = self.found(query, k, pool)?;
        let (mut ranked, shares) = self.rank(query, &terms, vector.as_deref(), found, &scale)?;
        ranked.truncate(names);
        let confidence = if self.usage.is_some() { ranker::confidence()? } else { scale.confidence() };
        Ok((twins::offers(&self.segments, ranked, k)?, shares, confidence))
    }

    /// The order of what was found by all that is known, with the shares behind each score; without usage it stays as it is.
    #[expect(clippy::type_complexity, reason = "the parts of one answer")]
    fn rank(
        &self,
        query: &Query,
        terms: &BTreeMap<String, f32>,
        vector: Option<&[f32]>,
        found: Vec<Scored>,
        scale: &Scale,
    ) -> Result<(Vec<Scored>, Vec<(f32, Vec<Share>)>)> {
        let known = Known::new(self, query, terms, vector, scale)?;
        let mut ranked = Vec::with_capacity(found.len());
        for scored in found {
            let shares = known.shares(&scored)?;
            let score = if self.usage.is_some() { ranker::score(&shares) } else { scored.score };
            ranked.push((Scored { score, ..scored }, shares));
        }
        // Stable: equal ones stay in the order of words and vectors, and then of names.
        ranked.sort_by(|(a, _), (b, _)| b.score.total_cmp(&a.score));
        let shares = ranked.iter().map(|(scored, shares)| (scored.score, shares.clone())).collect();
        Ok((ranked.into_iter().map(|(scored, _)| scored).collect(), shares))
    }

    /// Whether it holds a segment of which a search, with a vector or without, need not look at every record.
    fn is_large(&self, with_vector: bool) -> bool {
        let large = |segment: &Segment| match with_vector {
            true => segment.near.is_some(),
            false => segment.impacts.is_some(),
        };
        self.segments.iter().any(large)
    }

    /// Looks at every record. Where others need not, scores are what theirs are.
    fn search_all(
        &self,
        terms: &BTreeMap<String, f32>,
        vector: Option<&[f32]>,
        k: usize,
    ) -> Result<(Vec<Scored>, Scale)> {
        let (corpus, segments) = (&self.corpus, &self.segments);
        let mut scores = corpus.sparse_scores(segments, terms)?;
        let words = match self.is_large(vector.is_some()) {
            true => Some(Words::open(corpus, segments, terms)?),
            false => None,
        };
        let scale = match (vector.map(QueryCode::of).transpose()?, words) {
            (Some(code), words) => {
                let fusion =
                    words.map(|words| large::fusion(&words, &self.sample, segments, &code)).transpose()?;
                Scale::Both(fusion::add_dense(&mut scores, corpus, segments, &code, fusion)?)
            }
            (None, Some(words)) => Scale::Words(words.moments),
            (None, None) => Scale::Words(fusion::moments_of_words(corpus, segments, &scores)),
        };
        Ok((corpus.best(segments, found(&scores), k)?, scale))
    }

    /// Looks at the records that may be among the best. By words the hits are those of [`Self::search_all`]; by vectors they
    /// are nearly those.
    fn search_large(
        &self,
        terms: &BTreeMap<String, f32>,
        vector: Option<&[f32]>,
        k: usize,
    ) -> Result<(Vec<Scored>, Scale)> {
        let (corpus, segments) = (&self.corpus, &self.segments);
        let mut words = Words::open(corpus, segments, terms)?;
        let (docs, scale) = match vector {
            Some(vector) => {
                let (docs, fusion) =
                    large::best_fused(&mut words, corpus, &self.sample, segments, vector, k)?;
                (docs, Scale::Both(fusion))
            }
            None => (words.best_docs(segments, k)?, Scale::Words(words.moments)),
        };
        Ok((corpus.best(segments, docs.into_iter(), k)?, scale))
    }

    fn hit(&self, rank: usize, offer: Offer, confidence: &Confidence) -> Result<Hit> {
        let Offer { scored, api, classes } = offer;
        let also = self.also(&api, scored.place, classes)?;
        Ok(Hit {
            rank,
            id: self.id(scored.place),
            api,
            score: scored.score,
            confidence: confidence.of(scored.score),
            also,
        })
    }

    /// Qualified names of the other records of `api`'s name and of the `classes` that it stands for, the first [`MAX_ALSO`].
    fn also(&self, api: &ApiDoc, place: Place, classes: Vec<String>) -> Result<Vec<String>> {
        let mut also = classes;
        for (s, segment) in self.segments.iter().enumerate() {
            let name = match s == place.segment {
                true => Some(segment.name_of[place.doc] as usize),
                false => segment.records.find_name(&api.name)?,
            };
            let Some(i) = name else { continue };
            // sorted within a segment, so the first few of each are enough
            let mut last = String::new();
            let mut taken = 0;
            for doc in segment.records.docs_of_name(i)? {
                if segment.deleted.contains(doc) || (place == Place { segment: s, doc }) {
                    continue;
                }
                let other = segment.records.api(doc)?.qualified_name;
                if other != last && other != api.qualified_name {
                    last.clone_from(&other);
                    also.push(other);
                    taken += 1;
                }
                if taken == MAX_ALSO {
                    break;
                }
            }
        }
        also.sort_unstable();
        also.dedup();
        also.truncate(MAX_ALSO);
        Ok(also)
    }

    fn id(&self, place: Place) -> ApiId {
        let before: usize = self.segments[..place.segment].iter().map(Segment::docs).sum();
        // the manifest was refused if its docs did not fit
        ApiId((before + place.doc) as u32)
    }

    /// The record `id` of this open index.
    ///
    /// # Errors
    /// There is no such record ([`ErrorKind::NotFound`]) or its file is corrupted.
    pub fn api(&self, id: ApiId) -> Result<ApiDoc> {
        let mut doc = id.0 as usize;
        for segment in &self.segments {
            if doc < segment.docs() {
                if segment.deleted.contains(doc) {
                    break;
                }
                return segment.records.api(doc);
            }
            doc -= segment.docs();
        }
        Err(Error::new(ErrorKind::NotFound, format!("no API {} in the index {}", id.0, self.dir.display())))
    }

    /// Ids of all records, in no order that means anything.
    pub fn ids(&self) -> impl Iterator<Item = ApiId> {
        let places = self
            .segments
            .iter()
            .enumerate()
            .flat_map(|(s, segment)| segment.live().map(move |doc| Place { segment: s, doc }));
        places.map(|place| self.id(place))
    }

    /// Records that go by `name`: a qualified name, a bare name, an alias, or a dotted tail of these
    /// (`DataFrame.pivot`). The closest match first; among equals in the order of their qualified names.
    ///
    /// # Errors
    /// A part of a file that is read for the first time turns out to be corrupted.
    pub fn find(&self, name: &str) -> Result<Vec<ApiDoc>> {
        let mut found = Vec::new();
        for segment in &self.segments {
            for doc in segment.records.find(name)? {
                if !segment.deleted.contains(doc) {
                    found.push(segment.records.api(doc)?);
                }
            }
        }
        found.sort_by_cached_key(|api| {
            (Records::closeness(api, name), api.qualified_name.clone(), api.signature.clone())
        });
        Ok(found)
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }
}
