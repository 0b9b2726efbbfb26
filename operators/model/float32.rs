//! `e^x` and the logarithm of 32-bit floats, as the C library of Linux (glibc) rounds them.
//!
//! XGBoost takes both from the system, so a probability equal to its own to the last bit needs just these
//! roundings, which are not always the nearest. Here they are computed in 64-bit arithmetic without fused
//! multiply-add, so they are the same on every processor. Compared with glibc 2.36 over every 32-bit float:
//! [`exp`] differs for none up to 88.7, and for 2 where the processor has fused multiply-add (which glibc uses);
//! [`ln`] for 12 of the 2,130,706,432 normal numbers above 0.

/// 2^(i/32), each rounded to the nearest.
const TWO_TO: [f64; 32] = [
    1.0,
    1.021_897_148_654_116_6,
    1.044_273_782_427_413_8,
    1.067_140_400_676_823_7,
    1.090_507_732_665_257_7,
    1.114_386_742_595_892_4,
    1.138_788_634_756_691_6,
    1.163_724_858_777_577_5,
    1.189_207_115_002_721,
    1.215_247_359_980_469,
    1.241_857_812_073_484,
    1.269_050_957_191_733_2,
    1.296_839_554_651_009_6,
    1.325_236_643_159_741_3,
    1.354_255_546_936_892_7,
    1.383_909_881_963_832,
    std::f64::consts::SQRT_2,
    1.445_180_806_977_046_7,
    1.476_826_145_939_499_3,
    1.509_164_427_593_422_8,
    1.542_210_825_407_940_7,
    1.575_980_845_107_886_5,
    1.610_490_331_949_254_3,
    1.645_755_478_153_965,
    1.681_792_830_507_429,
    1.718_619_298_122_478,
    1.756_252_160_373_299_5,
    1.794_709_075_003_107_2,
    1.834_008_086_409_342_4,
    1.874_167_634_110_3,
    1.915_206_561_397_147_4,
    1.957_144_124_175_400_2,
];

/// 1.5 * 2^52: a sum with it has no room for a fraction, so it holds the nearest whole number.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// Below, `e^x` is 0 in 32 bits.
const EXP_IS_0: f32 = -103.972_08;

/// Above, `e^x` has no place in 32 bits.
const EXP_IS_INFINITE: f32 = 88.722_84;

/// The cubic `1 + EXP[2] x + EXP[1] x² + EXP[0] x³` nearest to 2^x, by relative error, for x in -1/64..=1/64
/// (found by Remez's exchange).
const EXP: [f64; 3] = [0.055_503_615_589_731_08, 0.240_228_452_244_640_62, 0.693_147_180_691_621_2];

/// `e^x`, for an `x` that is a number.
pub fn exp(x: f32) -> f32 {
    if x < EXP_IS_0 {
        return 0.0;
    }
    if x > EXP_IS_INFINITE {
        return f32::INFINITY;
    }
    // e^x = 2^(k/32) * 2^(r/32), k whole and r in -1/2..=1/2.
    let z = f64::from(x) * (std::f64::consts::LOG2_E * 32.0);
    let k = z + ROUNDER - ROUNDER;
    let r = z - k;
    let (third, second, first) = (EXP[0] / 32_768.0, EXP[1] / 1_024.0, EXP[2] / 32.0);
    let near_1 = (third * r + second) * (r * r) + (first * r + 1.0);
    let k = k as i64;
    let scale = f64::from_bits(((1_023 + k.div_euclid(32)) as u64) << 52);
    (near_1 * (TWO_TO[k.rem_euclid(32) as usize] * scale)) as f32
}

/// Factors of x², x³ and x⁴ in ln (1 + x) - x, fitted so that glibc's results come out (found by a linear program
/// over 600,000 of them).
const LN: [f64; 3] = [-0.499_999_748_595_900_74, 0.333_456_764_423_374_24, -0.250_893_319_011_547_77];

/// Bits of 0.69921875, where the first of 16 intervals begins that end at its double.
const FIRST: u32 = 0x3f33_0000;

/// The natural logarithm of a finite `x` that is at least the smallest normal number.
pub fn ln(x: f32) -> f32 {
    // x = 2^k * z with z in one of the intervals, and ln z = ln c + ln (1 + r) with c near its middle.
    let above = x.to_bits().wrapping_sub(FIRST);
    let k = (above as i32) >> 23;
    let z = f32::from_bits(x.to_bits().wrapping_sub(above & 0xff80_0000));
    let c = centre((above >> 19) & 15);
    let r = f64::from(z) / c - 1.0;
    let whole = libm::log(c) + f64::from(k) * std::f64::consts::LN_2;
    let square = r * r;
    ((LN[2] * square + (LN[1] * r + LN[0])) * square + (whole + r)) as f32
}

/// The number in an interval of [`ln`] that its logarithms are counted from.
fn centre(interval: u32) -> f64 {
    match interval {
        // 1 has no logarithm to be rounded, and what lies near it needs every bit.
        9 => 1.0,
        10 => 1.053_423,
        _ => {
            let bits = FIRST + (interval << 19);
            let (low, high) = (f32::from_bits(bits), f32::from_bits(bits + (1 << 19)));
            (f64::from(low) + f64::from(high)) / 2.0
        }
    }
}
