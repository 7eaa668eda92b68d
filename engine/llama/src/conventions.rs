//! What a GGUF file says of the text around a text: llama.cpp reads the keys `tokenizer.ggml.*_token_id`,
//! `tokenizer.ggml.add_bos_token` and `tokenizer.chat_template`, and knows the usual spellings where a key is missing.

use std::collections::BTreeMap;

use inhouse_core::decode::{Conventions, Infill, TokenId};

use crate::raw::ModelHandle;

pub(crate) fn read(model: &ModelHandle, encodes: bool) -> Conventions {
    let mut controls = BTreeMap::new();
    for token in 0..model.n_vocab() as TokenId {
        let control = model.token_kind(token).is_some_and(|kind| kind.control && !kind.unused);
        if control && let Some(text) = model.token_text(token) {
            controls.insert(text, token);
        }
    }
    let mut conventions = Conventions::from_controls(controls);
    let (before, after) = model.wrapping();
    let named = model.infill_tokens();
    if let [Some(prefix), Some(suffix), Some(middle)] = named.markers {
        let known = conventions.infill.take().map(|infill| infill.ends).unwrap_or_default();
        let mut ends = named.ends.clone();
        ends.extend(known.into_iter().filter(|token| !named.ends.contains(token)));
        conventions.infill = Some(Infill::prefix_first(prefix, suffix, middle, ends));
        conventions.infill_lacks.clear();
    }
    if encodes {
        conventions = conventions.with_gaps(before);
        // The token that the decoder begins with, too.
        conventions.extra_cells = before.into_iter().chain(after).count() + 1;
    } else {
        conventions.bos = before;
    }
    let (bos, eos) = model.bos_and_eos();
    let text = |token: Option<TokenId>| token.and_then(|token| model.token_text(token)).unwrap_or_default();
    (conventions.bos_text, conventions.eos_text) = (text(bos), text(eos));
    conventions.chat_template = model.chat_template();
    conventions
}
