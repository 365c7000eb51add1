//! One verdict on signatures: single equals batch equals ZIP-215 written down again, over signatures that other
//! verifiers disagree about.

use curve25519_dalek::constants::{ED25519_BASEPOINT_TABLE, EIGHT_TORSION};
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{Identity as _, IsIdentity as _};
use sha2::{Digest as _, Sha512};

use lockstep_types::crypto::{self, KeyError, SignatureCheck};
use lockstep_types::{PublicKey, Signature};

use crate::support::{key, public};

/// The order of the prime-order subgroup, little-endian.
const L: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0x10,
];

/// SHA-512 of R, A and the message, as a scalar.
fn challenge(r: &[u8], a: &[u8], message: &[u8]) -> Scalar {
    let mut hash = Sha512::new();
    hash.update(r);
    hash.update(a);
    hash.update(message);
    Scalar::from_bytes_mod_order_wide(&hash.finalize().into())
}

/// ZIP-215: S is below L; R and A are any encodings of points, canonical or not; 8SB = 8R + 8kA.
fn zip215(check: &SignatureCheck) -> bool {
    let (r, s) = check.signature.0.split_at(32);
    let Some(s) = Option::<Scalar>::from(Scalar::from_canonical_bytes(s.try_into().unwrap())) else { return false };
    let Some(a) = CompressedEdwardsY(check.public_key.0).decompress() else { return false };
    let Some(r_point) = CompressedEdwardsY(r.try_into().unwrap()).decompress() else { return false };
    let k = challenge(r, &check.public_key.0, &check.message);
    (&s * ED25519_BASEPOINT_TABLE - r_point - k * a).mul_by_cofactor().is_identity()
}

fn check(a: [u8; 32], r: [u8; 32], s: [u8; 32], message: &[u8]) -> SignatureCheck {
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&r);
    signature[32..].copy_from_slice(&s);
    SignatureCheck { public_key: PublicKey(a), message: message.to_vec(), signature: Signature(signature) }
}

/// Numbers that look random and never change (a linear congruence, its high bits).
struct Draw(u64);

impl Draw {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }

    fn scalar(&mut self) -> Scalar {
        let mut bytes = [0; 64];
        bytes.fill_with(|| u8::try_from(self.next(256)).unwrap());
        Scalar::from_bytes_mod_order_wide(&bytes)
    }
}

/// A signature whose R and A carry these torsion points.
fn with_torsion(draw: &mut Draw, on_r: EdwardsPoint, on_a: EdwardsPoint, message: &[u8]) -> SignatureCheck {
    let (secret, nonce) = (draw.scalar(), draw.scalar());
    let a = (&secret * ED25519_BASEPOINT_TABLE + on_a).compress().to_bytes();
    let r = (&nonce * ED25519_BASEPOINT_TABLE + on_r).compress().to_bytes();
    let s = nonce + challenge(&r, &a, message) * secret;
    check(a, r, s.to_bytes(), message)
}

/// 800 signatures with a torsion point added to R, every such point as often. A verifier without the cofactor refuses
/// all but the neutral one's.
fn torsion_on_r() -> Vec<SignatureCheck> {
    let mut draw = Draw(1);
    (0..800).map(|i| with_torsion(&mut draw, EIGHT_TORSION[i % 8], EdwardsPoint::identity(), format!("message {i}").as_bytes())).collect()
}

/// Torsion on R and A, in every combination.
fn torsion_on_both() -> Vec<SignatureCheck> {
    let mut draw = Draw(2);
    (0..64).map(|i| with_torsion(&mut draw, EIGHT_TORSION[i % 8], EIGHT_TORSION[i / 8], format!("both {i}").as_bytes())).collect()
}

/// All 14 encodings of points of small order: eight canonical, six not.
fn small_order_encodings() -> Vec<([u8; 32], bool)> {
    let mut encodings: Vec<([u8; 32], bool)> = EIGHT_TORSION.iter().map(|point| (point.compress().to_bytes(), true)).collect();
    let number = |low: u8, rest: u8, high: u8| {
        let mut bytes = [rest; 32];
        (bytes[0], bytes[31]) = (low, high);
        bytes
    };
    // The sign of x = 0 set: y = 1, y = -1. Then y = p and y = p + 1, with either sign.
    encodings.push((number(0x01, 0, 0x80), false));
    encodings.push((number(0xec, 0xff, 0xff), false));
    for low in [0xed, 0xee] {
        for high in [0x7f, 0xff] {
            encodings.push((number(low, 0xff, high), false));
        }
    }
    encodings
}

/// R and A of small order in every encoding, S = 0: the 196 signatures of ZIP-215.
fn small_order() -> Vec<SignatureCheck> {
    let encodings = small_order_encodings();
    encodings.iter().flat_map(|(a, _)| encodings.iter().map(|(r, _)| check(*a, *r, [0; 32], b"Zcash"))).collect()
}

fn honest(n: u8) -> SignatureCheck {
    let message = vec![n; usize::from(n)];
    SignatureCheck { public_key: public(n), signature: key(n).sign(&message), message }
}

/// S + L: the same scalar, spelled a second way.
fn unreduced(mut check: SignatureCheck) -> SignatureCheck {
    let mut carry = 0;
    for (byte, l) in check.signature.0[32..].iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(l) + carry;
        *byte = u8::try_from(sum & 0xff).unwrap();
        carry = sum >> 8;
    }
    assert_eq!(carry, 0, "S + L fits 32 bytes");
    check
}

/// What is invalid by every rule, and what only some would refuse.
fn invalid() -> Vec<SignatureCheck> {
    let mut all = Vec::new();
    for n in 1..=20 {
        let good = honest(n);
        let mut other_message = good.clone();
        other_message.message.push(0);
        let other_key = SignatureCheck { public_key: public(n + 1), ..good.clone() };
        let mut flipped_r = good.clone();
        flipped_r.signature.0[usize::from(n)] ^= 1;
        let mut flipped_s = good.clone();
        flipped_s.signature.0[40] ^= 1;
        let mut high_bit = good.clone();
        high_bit.signature.0[63] |= 0x80;
        // y = 2 is on no point of the curve.
        let mut no_key = [0; 32];
        no_key[0] = 2;
        let mut no_r = good.clone();
        no_r.signature.0[..32].copy_from_slice(&no_key);
        let no_key = SignatureCheck { public_key: PublicKey(no_key), ..good.clone() };
        all.extend([other_message, other_key, flipped_r, flipped_s, high_bit, no_r, no_key, unreduced(good)]);
    }
    // S = L and S = 2^256 - 1 under a key of small order: zero, badly spelled, and no scalar at all.
    let neutral = EdwardsPoint::identity().compress().to_bytes();
    all.push(check(neutral, neutral, L, b"S is L"));
    all.push(check(neutral, neutral, [0xff; 32], b"S is huge"));
    all.extend(torsion_on_r().into_iter().take(16).map(unreduced));
    all
}

#[test]
fn crafted_signatures_are_valid_by_the_rule_we_chose() {
    for check in torsion_on_r().iter().chain(&torsion_on_both()).chain(&small_order()).chain(&(1..=20).map(honest).collect::<Vec<_>>()) {
        assert!(zip215(check));
        assert!(crypto::verify(&check.public_key, &check.message, &check.signature));
    }
    assert_eq!(small_order().len(), 196);
}

#[test]
fn invalid_signatures_are_invalid_one_by_one() {
    for (place, check) in invalid().iter().enumerate() {
        assert!(!zip215(check), "{place}");
        assert!(!crypto::verify(&check.public_key, &check.message, &check.signature), "{place}");
    }
}

#[test]
fn crafted_signatures_tell_verifiers_apart() {
    // The reason for all this: the plain verifier of the library that signs refuses what ZIP-215 accepts.
    use ed25519_dalek::Verifier as _;
    let plain = |check: &SignatureCheck| {
        ed25519_dalek::VerifyingKey::from_bytes(&check.public_key.0)
            .is_ok_and(|key| key.verify(&check.message, &ed25519_dalek::Signature::from_bytes(&check.signature.0)).is_ok())
    };
    let refused = torsion_on_r().iter().filter(|check| !plain(check)).count();
    assert_eq!(refused, 700, "all but those with the neutral point");
}

#[test]
fn a_batch_of_valid_ones_is_valid() {
    for batch in [torsion_on_r(), torsion_on_both(), small_order()] {
        assert!(crypto::verify_batch(&batch).into_iter().all(|valid| valid));
        // Small ones too, on both sides of the size below which nothing is batched.
        for size in 0..=9 {
            assert!(batch.chunks(size.max(1)).take(20).all(|part| crypto::verify_batch(part) == vec![true; part.len()]));
        }
    }
    assert_eq!(crypto::verify_batch(&[]), Vec::<bool>::new());
}

#[test]
fn a_batch_answers_as_each_alone_in_every_mix() {
    let pools = [torsion_on_r(), torsion_on_both(), small_order(), invalid(), (1..=40).map(honest).collect()];
    let mut draw = Draw(3);
    let (mut all_valid, mut mixed) = (0, 0);
    for mix in 0..400 {
        let size = 1 + draw.next(24);
        let batch: Vec<SignatureCheck> = (0..size)
            .map(|_| {
                // Every second mix takes no invalid ones, so that batches hold as well as fail.
                let pool = &pools[[0, 1, 2, 4, 3][draw.next(if mix % 2 == 0 { 4 } else { 5 })]];
                pool[draw.next(pool.len())].clone()
            })
            .collect();
        let alone: Vec<bool> = batch.iter().map(zip215).collect();
        let single: Vec<bool> = batch.iter().map(|check| crypto::verify(&check.public_key, &check.message, &check.signature)).collect();
        assert_eq!(single, alone, "mix {mix}");
        assert_eq!(crypto::verify_batch(&batch), alone, "mix {mix}");
        if alone.iter().all(|valid| *valid) { all_valid += 1 } else { mixed += 1 }
    }
    assert!(all_valid > 150 && mixed > 100, "{all_valid} valid, {mixed} mixed");
}

#[test]
fn one_bad_one_is_found_at_every_place() {
    let bad = invalid();
    let good: Vec<SignatureCheck> = torsion_on_both();
    for (place, bad) in (0..good.len()).zip(bad.iter().cycle()) {
        let mut batch = good.clone();
        batch[place] = bad.clone();
        let expected: Vec<bool> = (0..good.len()).map(|i| i != place).collect();
        assert_eq!(crypto::verify_batch(&batch), expected);
    }
}

#[test]
fn two_errors_that_cancel_are_found() {
    // S1 + d and S2 - d: the plain sum of the two equations still holds, so a batch without coefficients accepts them.
    let mut draw = Draw(4);
    for _ in 0..50 {
        let mut batch = torsion_on_both();
        let delta = draw.scalar();
        for (place, sign) in [(0, delta), (1, -delta)] {
            let s = Scalar::from_canonical_bytes(batch[place].signature.0[32..].try_into().unwrap()).unwrap() + sign;
            batch[place].signature.0[32..].copy_from_slice(&s.to_bytes());
        }
        let answers = crypto::verify_batch(&batch);
        assert_eq!(answers[..3], [false, false, true]);
    }
}

#[test]
fn weak_and_second_spellings_of_keys_are_refused() {
    for (encoding, canonical) in small_order_encodings() {
        let expected = if canonical { KeyError::Weak } else { KeyError::NonCanonical };
        assert_eq!(PublicKey(encoding).check(), Err(expected), "{encoding:02x?}");
    }
    // Every y from p to 2^255 - 1 is another y below 19: no key, whichever its sign.
    for low in 0xed..=0xff {
        for high in [0x7f, 0xff] {
            let mut bytes = [0xff; 32];
            (bytes[0], bytes[31]) = (low, high);
            assert!(matches!(PublicKey(bytes).check(), Err(KeyError::NonCanonical | KeyError::NotAPoint)), "{low:#x} {high:#x}");
        }
    }
    let mut nowhere = [0; 32];
    nowhere[0] = 2;
    assert_eq!(PublicKey(nowhere).check(), Err(KeyError::NotAPoint));
}

#[test]
fn good_keys_are_accepted() {
    for n in 0..=255 {
        assert_eq!(public(n).check(), Ok(()));
    }
}

#[test]
fn the_same_bytes_sign_to_the_same_signature() {
    assert_eq!(key(1).sign(b"m").0, key(1).sign(b"m").0);
    assert!(!format!("{:?}", key(1)).contains("0101"), "a secret key does not show itself");
}
