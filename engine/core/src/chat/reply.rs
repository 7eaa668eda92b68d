//! The code in a reply: out of its block, without what it repeats of the code around the cursor.

/// What stands in `reply` for the code between `text` (the prompt's text: API lines and prefix) and `suffix`.
///
/// Of a reply with code blocks the first one that adds something counts, of one without them all of it, thoughts
/// (`<think>`) left out. What the code repeats of the end of `text` and of the beginning of `suffix` is taken off, by whole
/// lines or from the beginning of the last one. Where the prefix ends in a line that is complete (a comment, the head of a
/// block), the code begins on the next.
pub fn code_of_reply(reply: &str, text: &str, suffix: Option<&str>) -> String {
    let answer = reply.rsplit_once("</think>").map_or(reply, |(_, after)| after);
    let mut blocks = blocks(answer);
    if blocks.is_empty() {
        blocks.push(answer.trim_start_matches(['\r', '\n']).trim_end());
    }
    let new = |code: &&str| {
        let after = after_repeated(code, text);
        let rest = before_repeated(after.unwrap_or(code), suffix.unwrap_or_default());
        let code = if after.is_some() || rest.is_empty() { rest.to_owned() } else { joined(rest, text) };
        (!code.trim().is_empty()).then_some(code)
    };
    blocks.iter().find_map(new).unwrap_or_default()
}

/// The code blocks of Markdown in a reply; one that is not closed goes on to the end.
fn blocks(reply: &str) -> Vec<&str> {
    let mut blocks = Vec::new();
    // The fence that is open, and where its code begins.
    let mut open: Option<(&str, usize)> = None;
    let mut at = 0;
    for line in reply.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let trimmed = line.trim();
        let fence = &trimmed[..trimmed.len() - trimmed.trim_start_matches('`').len()];
        match open {
            Some((opened, begin)) if fence.len() >= opened.len() && fence == trimmed => {
                blocks.push(reply[begin..start].trim_end());
                open = None;
            }
            None if fence.len() >= 3 && !trimmed[fence.len()..].contains('`') => open = Some((fence, at)),
            _ => {}
        }
    }
    if let Some((_, begin)) = open {
        blocks.push(reply[begin..].trim_end());
    }
    blocks
}

/// What follows in `code` after the longest end of `text`, from the beginning of a line on, that it begins with.
fn after_repeated<'c>(code: &'c str, text: &str) -> Option<&'c str> {
    let code = code.trim_start_matches(['\r', '\n']);
    let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1));
    for start in starts {
        let tail = &text[start..];
        let line = tail.trim_end();
        if line.is_empty() {
            break;
        }
        // A space at the end of the text is often left away, or stands on the next line.
        if let Some(rest) = code.strip_prefix(tail) {
            return Some(rest);
        }
        if let Some(rest) =
            code.strip_prefix(line).filter(|rest| rest.starts_with(['\n', '\r']) || tail.len() > line.len())
        {
            let ended = tail[line.len()..].contains('\n');
            return Some(if ended { rest.strip_prefix('\n').unwrap_or(rest) } else { rest });
        }
    }
    // The last line alone, when it is not complete, may come without its indentation.
    let last = text.rsplit_once('\n').map_or(text, |(_, last)| last);
    let last = last.trim_start();
    if last.trim().is_empty() { None } else { code.strip_prefix(last) }
}

/// What comes in `code` before the longest beginning of `suffix`, up to the end of a line, that it ends with.
fn before_repeated<'c>(code: &'c str, suffix: &str) -> &'c str {
    let ends = suffix.match_indices('\n').map(|(at, _)| at).chain([suffix.len()]);
    let mut heads: Vec<&str> =
        ends.map(|end| suffix[..end].trim_end()).filter(|head| !head.trim().is_empty()).collect();
    heads.reverse();
    let repeated = heads.into_iter().find_map(|head| code.trim_end().strip_suffix(head));
    repeated.unwrap_or(code)
}

/// `code` as it follows `text`, on a line of its own where the last one is complete.
fn joined(code: &str, text: &str) -> String {
    let last = text.rsplit_once('\n').map_or(text, |(_, last)| last).trim();
    let complete = last.starts_with('#')
        || last.ends_with(':')
        || last.len() > 3 && (last.ends_with("\"\"\"") || last.ends_with("'''"));
    if complete && !code.starts_with('\n') { format!("\n{code}") } else { code.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_code_is_found() {
        let context = "import loom\n\ndef total(xs):\n    return ";
        for (reply, code) in [
            ("sum(xs)", "sum(xs)"),
            ("```python\nsum(xs)\n```", "sum(xs)"),
            ("Sure!\n\n```python\nsum(xs)\n```\nThis adds them.", "sum(xs)"),
            // Repeated: everything, some lines, the last line, the last line without its indentation.
            ("```\nimport loom\n\ndef total(xs):\n    return sum(xs)\n```", "sum(xs)"),
            ("```py\ndef total(xs):\n    return sum(xs)\n```", "sum(xs)"),
            ("```py\n    return sum(xs)\n```", "sum(xs)"),
            ("```py\nreturn sum(xs)\n```", "sum(xs)"),
            // Cut off by the length.
            ("```python\nsum(xs", "sum(xs"),
            // A block that only repeats is passed over.
            (
                "You have:\n```\nimport loom\n\ndef total(xs):\n    return \n```\nNow:\n```\nsum(xs)\n```",
                "sum(xs)",
            ),
            ("<think>```x```\nhm</think>\n\n```\nsum(xs)\n```", "sum(xs)"),
            ("````\nx = '''\n```\n'''\n````", "x = '''\n```\n'''"),
            ("", ""),
        ] {
            assert_eq!(code_of_reply(reply, context, None), code, "{reply:?}");
        }
    }

    #[test]
    fn a_complete_line_is_not_continued() {
        let reply = "```python\ntotal = sum(xs)\n```";
        for (context, code) in [
            ("# add them", "\ntotal = sum(xs)"),
            ("# add them\n", "total = sum(xs)"),
            ("def f(xs):", "\ntotal = sum(xs)"),
            ("\"\"\"Adds.\"\"\"", "\ntotal = sum(xs)"),
            ("total =", " sum(xs)"),
            ("total = 1 +", "total = sum(xs)"),
        ] {
            assert_eq!(code_of_reply(reply, context, None), code, "{context:?}");
        }
        let repeated = "```python\n# add them\ntotal = sum(xs)\n```";
        assert_eq!(code_of_reply(repeated, "import a\n# add them\n", None), "total = sum(xs)");
        assert_eq!(code_of_reply(repeated, "import a\n# add them", None), "\ntotal = sum(xs)");
    }

    #[test]
    fn what_stands_after_the_cursor_is_not_repeated() {
        let suffix = "\n    return total\n\nprint(f())\n";
        for reply in [
            "```\ntotal = 1\n```",
            "```\n    total = 1\n    return total\n```",
            "```\ndef f():\n    total = 1\n    return total\n\nprint(f())\n```",
        ] {
            let code = code_of_reply(reply, "def f():\n    ", Some(suffix));
            assert_eq!(code.trim(), "total = 1", "{reply:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(reply in "(```|\n|`|py|é|x = |</think>){0,12}", text in "(\n|x = |é|#|  ){0,6}", suffix in "(\n|x = |é|  ){0,6}") {
            let code = code_of_reply(&reply, &text, Some(&suffix));
            prop_assert!(code.len() <= reply.len() + 1);
        }
    }
}
