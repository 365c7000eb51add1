//! Text that others wrote and people read on a terminal.

/// Whether a character hides itself, or changes what stands beside it: it moves a cursor, or hides, reverses or joins other characters. Where
/// names are told to everybody by a chain for ever, none may have such a one.
pub fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
