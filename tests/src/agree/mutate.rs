//! Frames spoilt by chance: a bit here, a length there, an end too soon.

use super::dice::Dice;

/// Spoils a frame in one to three ways.
pub fn mutate(dice: &mut Dice, frame: &mut Vec<u8>) {
    for _ in 0..dice.within(1..=3) {
        spoil(dice, frame);
    }
}

fn spoil(dice: &mut Dice, frame: &mut Vec<u8>) {
    if frame.len() < 20 {
        return;
    }
    // Headers are what matters, mostly.
    let most = frame.len().min(if dice.chance(80) { 90 } else { frame.len() });
    let at = dice.below(most);
    match dice.below(10) {
        0..=3 => frame[at] ^= 1 << dice.below(8),
        4 => frame[at] = *dice.pick(&[0, 1, 2, 0x7f, 0x80, 0xfe, 0xff]),
        5 => frame[at] = dice.byte(),
        6 => frame.truncate(dice.within(14..=frame.len())),
        7 => {
            let more = dice.within(1..=40);
            let bytes = dice.bytes(more);
            frame.extend(bytes);
        }
        8 => {
            // A 16-bit field a little off: a length, an offset, a checksum.
            let at = at & !1;
            if let Some(field) = frame.get_mut(at..at + 2) {
                let value = u16::from_be_bytes([field[0], field[1]]);
                let off = *dice.pick(&[1, 2, 4, 8, 0xffff, 0xfffe, 0xfffc, 0xfff8]);
                field.copy_from_slice(&value.wrapping_add(off).to_be_bytes());
            }
        }
        _ => {
            // Two fields change places.
            let other = dice.below(most) & !1;
            let at = at & !1;
            if at.max(other) + 2 <= frame.len() {
                frame.swap(at, other);
                frame.swap(at + 1, other + 1);
            }
        }
    }
}
