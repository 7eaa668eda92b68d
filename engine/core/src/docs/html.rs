//! The little of HTML that Sphinx's API pages need: tags, text, entities.

/// A piece of a page.
pub(super) enum Token<'a> {
    /// `<name ...>` with the text between name and `>`.
    Open(&'a str, &'a str),
    /// `</name>`.
    Close(&'a str),
    /// Text with entities still in it.
    Text(&'a str),
}

/// Splits a page into tags and text; comments, declarations, scripts and styles are dropped. Broken markup gives text.
pub(super) struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    pub fn new(page: &'a str) -> Self {
        Tokens { rest: page }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            if !self.rest.starts_with('<') {
                let end = self.rest.find('<').unwrap_or(self.rest.len());
                let (text, rest) = self.rest.split_at(end);
                self.rest = rest;
                return Some(Token::Text(text));
            }
            if let Some(comment) = self.rest.strip_prefix("<!--") {
                self.rest = comment.find("-->").map_or("", |end| &comment[end + 3..]);
                continue;
            }
            let Some(end) = tag_end(self.rest) else {
                let text = self.rest;
                self.rest = "";
                return Some(Token::Text(text));
            };
            let tag = &self.rest[1..end];
            self.rest = &self.rest[end + 1..];
            if tag.starts_with(['!', '?']) {
                continue;
            }
            if let Some(name) = tag.strip_prefix('/') {
                return Some(Token::Close(name.trim()));
            }
            let split = tag.find(|c: char| c.is_whitespace() || c == '/').unwrap_or(tag.len());
            let (name, attributes) = tag.split_at(split);
            if matches!(name, "script" | "style") {
                let close = format!("</{name}");
                self.rest = self.rest.find(&close).map_or("", |at| &self.rest[at..]);
                continue;
            }
            return Some(Token::Open(name, attributes));
        }
    }
}

/// Offset of the `>` that ends the tag at the start of `text`, quoted attribute values passed over.
fn tag_end(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), _) if open == byte => quote = None,
            // An attribute value never spans this much: the quote is a stray one.
            _ if at > 1 << 16 => return text.find('>'),
            _ => {}
        }
    }
    text.find('>')
}

/// The value of an attribute, entities decoded.
pub(super) fn attribute(attributes: &str, name: &str) -> Option<String> {
    let mut from = 0;
    while let Some(at) = attributes[from..].find(name).map(|at| at + from) {
        let before = attributes[..at].chars().next_back();
        let rest = attributes[at + name.len()..].trim_start();
        if before.is_none_or(char::is_whitespace)
            && let Some(value) = rest.strip_prefix('=')
        {
            let value = value.trim_start();
            let quoted = value.starts_with(['"', '\'']).then(|| &value[..1]);
            let value = match quoted {
                Some(quote) => value[1..].split(quote).next(),
                None => value.split(char::is_whitespace).next(),
            };
            return value.map(decode);
        }
        from = at + name.len();
    }
    None
}

/// Replaces entities.
pub(super) fn decode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.bytes().take(12).position(|byte| byte == b';');
        let decoded = end.and_then(|end| entity(&rest[1..end]));
        match (decoded, end) {
            (Some(c), Some(end)) => {
                out.push(c);
                rest = &rest[end + 1..];
            }
            _ => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn entity(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            None => number.parse().ok()?,
        };
        return char::from_u32(code);
    }
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => ' ',
        "mdash" => '—',
        "ndash" => '–',
        "hellip" => '…',
        "rarr" => '→',
        "para" => '¶',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_entities() {
        let page =
            "<!-- c --><dt id=\"a.b\" class='x > y'>f<em>(&lt;x&#62;)</em></dt><script>if (a<b)</script>end<";
        let mut text = String::new();
        let mut ids = Vec::new();
        for token in Tokens::new(page) {
            match token {
                Token::Open("dt", attributes) => ids.extend(attribute(attributes, "id")),
                Token::Text(part) => text.push_str(&decode(part)),
                _ => {}
            }
        }
        assert_eq!(ids, ["a.b"]);
        assert_eq!(text, "f(<x>)end<");
        assert_eq!(decode("&unknown; & &#x41;"), "&unknown; & A");
    }
}
