//! Pictures for calibrating vision models where a user gives none.
//!
//! Leaves of many sizes that lie on each other, as in the dead leaves model of natural images (Lee et al. 2001), of few
//! colours each, with soft edges, shades and textures; some pictures are texture alone. They are drawn on squares of several
//! sizes: the model's own preprocessing enlarges the small ones, so that both soft and sharp pictures come of it. What a
//! picture shows depends on its number only, and everything is computed in the same order with the same roundings natively
//! and in WebAssembly.

/// Sides of the squares, in turns.
const SIDES: [usize; 4] = [32, 224, 64, 112];
/// Textures of each picture.
const TEXTURES: usize = 3;

/// RGB, eight bits each.
pub struct Picture {
    /// Three bytes a pixel, row by row.
    pub rgb: Vec<u8>,
    /// Pixels along each side.
    pub side: usize,
}

type Colour = [f32; 3];

/// Picture number `index`, always the same.
pub fn draw(index: u32) -> Picture {
    let side = SIDES[index as usize % SIDES.len()];
    let mut random = Random::new(index);
    let textures: Vec<Vec<f32>> = (0..TEXTURES).map(|_| texture(&mut random, side)).collect();
    let mut canvas = Canvas { side, pixels: vec![[0.0; 3]; side * side], textures };
    match index / SIDES.len() as u32 % 6 {
        0 => cloud(&mut random, &mut canvas),
        1 | 4 => scene(&mut random, &mut canvas, 0.03, false),
        2 => scene(&mut random, &mut canvas, 0.08, true),
        3 => heap(&mut random, &mut canvas),
        _ => scene(&mut random, &mut canvas, 0.03, true),
    }
    let byte = |v: f32| (v.clamp(0.0, 1.0) * 255.0) as u8;
    Picture { rgb: canvas.pixels.iter().flat_map(|p| p.map(byte)).collect(), side }
}

/// Texture in three colour axes.
fn cloud(random: &mut Random, canvas: &mut Canvas) {
    let side = canvas.side;
    let base = axes(random, [0.5, 0.2, 0.1]);
    let scales = [0.9, 0.35, 0.15];
    for i in 0..side * side {
        let v: Colour = std::array::from_fn(|c| base[c] + scales[c] * canvas.textures[c][i]);
        canvas.pixels[i] = colour_of(v);
    }
}

/// A background and some leaves, anywhere or, as a thing would be, large ones first around one place.
fn scene(random: &mut Random, canvas: &mut Canvas, smallest: f32, gathered: bool) {
    let palette: Vec<Colour> = (0..2 + random.below(4)).map(|_| colour(random)).collect();
    canvas.cover(&Fill::new(random, palette[0], 0.12));
    let n = 3 + random.below(57) as usize;
    let mut radii: Vec<f32> = (0..n).map(|_| radius(random, smallest, 0.5)).collect();
    if gathered {
        radii.sort_by(|a, b| b.total_cmp(a));
    }
    let middle = [0.3 + 0.4 * random.share(), 0.3 + 0.4 * random.share()];
    let spread = 0.06 + 0.3 * random.share();
    for r in radii {
        let centre = middle.map(|m| match gathered {
            true => m + spread * random.normal(),
            false => random.share() * 1.2 - 0.1,
        });
        let base = palette[random.below(palette.len() as u32) as usize];
        let base = base.map(|c| c + 0.08 * random.normal());
        let soft = if random.below(5) < 3 { 0.08 * random.exponential() } else { 0.0 };
        let leaf = Leaf::new(random, centre, r, soft);
        canvas.paint(&leaf, &Fill::new(random, base, 0.08));
    }
}

/// Leaves that cover everything.
fn heap(random: &mut Random, canvas: &mut Canvas) {
    let palette: Vec<Colour> = (0..3 + random.below(4)).map(|_| colour(random)).collect();
    canvas.cover(&Fill::new(random, palette[0], 0.06));
    let smallest = if canvas.side < 100 { 1.5 / canvas.side as f32 } else { 0.025 };
    for _ in 0..600 {
        let centre = [random.share() * 1.2 - 0.1, random.share() * 1.2 - 0.1];
        let base = palette[random.below(palette.len() as u32) as usize];
        let base = base.map(|c| c + 0.06 * random.normal());
        let r = radius(random, smallest, 0.6);
        let leaf = Leaf::new(random, centre, r, 0.0);
        canvas.paint(&leaf, &Fill::new(random, base, 0.06));
    }
}

/// A radius between two, as a share of the side: larger than r in proportion to r to the power of -2, which looks alike
/// at every distance.
fn radius(random: &mut Random, smallest: f32, largest: f32) -> f32 {
    let (few, many) = (1.0 / (largest * largest), 1.0 / (smallest * smallest));
    1.0 / (few + (many - few) * random.share()).sqrt()
}

/// Lightness, warm against cold, green against magenta.
fn axes(random: &mut Random, scales: [f32; 3]) -> Colour {
    scales.map(|s| s * random.normal())
}

fn colour_of([light, warm, green]: Colour) -> Colour {
    [light + warm + green, light, light - warm + green].map(|v| 1.0 / (1.0 + libm::expf(-v)))
}

fn colour(random: &mut Random) -> Colour {
    colour_of(axes(random, [0.9, 0.35, 0.2]))
}

/// How a leaf or the background is coloured.
struct Fill {
    base: Colour,
    /// Change of brightness from one side of the picture to the other.
    shade: [f32; 2],
    /// Which texture, and where it begins.
    texture: usize,
    at: [usize; 2],
    /// How much of it in each channel.
    strength: Colour,
}

impl Fill {
    fn new(random: &mut Random, base: Colour, strength: f32) -> Self {
        let strength = strength * random.exponential();
        Fill {
            base,
            shade: [0.25 * random.normal(), 0.25 * random.normal()],
            texture: random.below(TEXTURES as u32) as usize,
            at: [random.below(1 << 16) as usize, random.below(1 << 16) as usize],
            strength: [0; 3].map(|_| strength * (1.0 + 0.3 * random.normal())),
        }
    }
}

/// An ellipse, a rectangle or a triangle, turned and stretched.
struct Leaf {
    centre: [f32; 2],
    /// Half its extent, at most.
    reach: f32,
    /// From pixels to its own coordinates, in which it reaches to 1.
    turn: [[f32; 2]; 2],
    form: u32,
    /// Width of its edge, as a share of its radius.
    soft: f32,
}

impl Leaf {
    fn new(random: &mut Random, centre: [f32; 2], r: f32, soft: f32) -> Self {
        let stretch = libm::expf(0.5 * random.normal());
        // A direction without sines: a point of the square, on the circle.
        let (x, y) = (random.share() * 2.0 - 1.0, random.share() + 1e-3);
        let length = (x * x + y * y).sqrt();
        let (cos, sin) = (x / length, y / length);
        let (wide, high) = (r / stretch, r * stretch);
        Leaf {
            centre,
            reach: 1.5 * wide.max(high) * (1.0 + soft),
            turn: [[cos / wide, sin / wide], [-sin / high, cos / high]],
            form: random.below(4),
            soft,
        }
    }

    /// How far out a point is: 1 at the edge.
    fn distance(&self, x: f32, y: f32) -> f32 {
        let u = self.turn[0][0] * x + self.turn[0][1] * y;
        let v = self.turn[1][0] * x + self.turn[1][1] * y;
        match self.form {
            0 | 1 => (u * u + v * v).sqrt(),
            2 => u.abs().max(v.abs()) * 1.15,
            _ => v.abs().max(u.abs() * 0.866 + v * 0.5) * 1.25,
        }
    }
}

struct Canvas {
    side: usize,
    pixels: Vec<Colour>,
    textures: Vec<Vec<f32>>,
}

impl Canvas {
    fn value(&self, fill: &Fill, x: usize, y: usize) -> Colour {
        let side = self.side;
        let place = |v: usize| (v as f32 + 0.5) / side as f32 - 0.5;
        let light = 1.0 + fill.shade[0] * place(x) + fill.shade[1] * place(y);
        let at = (y + fill.at[1]) % side * side + (x + fill.at[0]) % side;
        let grain = self.textures[fill.texture][at];
        std::array::from_fn(|c| fill.base[c] * light + fill.strength[c] * grain)
    }

    fn cover(&mut self, fill: &Fill) {
        for i in 0..self.pixels.len() {
            self.pixels[i] = self.value(fill, i % self.side, i / self.side);
        }
    }

    fn paint(&mut self, leaf: &Leaf, fill: &Fill) {
        let side = self.side as f32;
        let range = |c: f32| {
            let begin = ((c - leaf.reach) * side).clamp(0.0, side) as usize;
            begin..((c + leaf.reach) * side + 1.0).clamp(0.0, side) as usize
        };
        // At least a pixel of edge, so that shapes are not jagged.
        let soft = leaf.soft + 1.5 / (side * leaf.reach);
        for y in range(leaf.centre[1]) {
            for x in range(leaf.centre[0]) {
                let (fx, fy) = ((x as f32 + 0.5) / side, (y as f32 + 0.5) / side);
                let outside = leaf.distance(fx - leaf.centre[0], fy - leaf.centre[1]);
                let share = ((1.0 - outside) / soft + 0.5).clamp(0.0, 1.0);
                if share > 0.0 {
                    let value = self.value(fill, x, y);
                    let pixel = &mut self.pixels[y * self.side + x];
                    *pixel = std::array::from_fn(|c| pixel[c] + share * (value[c] - pixel[c]));
                }
            }
        }
    }
}

/// Noise of about unit variance whose octaves are about equally strong, as those of natural images, or fall off faster.
fn texture(random: &mut Random, side: usize) -> Vec<f32> {
    let fall = 0.7 + 0.4 * random.share();
    let mut out = vec![0f32; side * side];
    let (mut cells, mut weight, mut power) = (2, 1f32, 0f32);
    while cells <= side {
        octave(random, side, cells, weight, &mut out);
        // The variance of a smooth mean of four, over a cell.
        power += weight * weight * 0.55;
        cells *= 2;
        weight *= fall;
    }
    let scale = 1.0 / power.sqrt();
    out.iter_mut().for_each(|v| *v *= scale);
    out
}

/// Adds random values on a grid that wraps around, smoothly interpolated.
fn octave(random: &mut Random, side: usize, cells: usize, weight: f32, out: &mut [f32]) {
    let grid: Vec<f32> = (0..cells * cells).map(|_| random.normal() * weight).collect();
    let place = |v: usize| {
        let at = (v as f32 + 0.5) / side as f32 * cells as f32;
        let cell = at as usize % cells;
        let t = at - at as usize as f32;
        (cell, (cell + 1) % cells, t * t * (3.0 - 2.0 * t))
    };
    for y in 0..side {
        let (y0, y1, ty) = place(y);
        for x in 0..side {
            let (x0, x1, tx) = place(x);
            let row = |y: usize| {
                let (a, b) = (grid[y * cells + x0], grid[y * cells + x1]);
                a + tx * (b - a)
            };
            let (a, b) = (row(y0), row(y1));
            out[y * side + x] += a + ty * (b - a);
        }
    }
}

/// SplitMix64 (Steele et al. 2014).
struct Random(u64);

impl Random {
    fn new(index: u32) -> Self {
        Random((u64::from(index) << 32) | 0x5eed)
    }

    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 32) as u32
    }

    /// Between 0 and 1, without 1.
    fn share(&mut self) -> f32 {
        (self.next() >> 8) as f32 / 16_777_216.0
    }

    fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.next()) * u64::from(n)) >> 32) as u32
    }

    /// About normal, of unit variance: four shares added.
    fn normal(&mut self) -> f32 {
        let sum = self.share() + self.share() + self.share() + self.share();
        (sum - 2.0) * 1.732_050_8
    }

    /// Mean 1; what is rare stays below 17.
    fn exponential(&mut self) -> f32 {
        -libm::logf(1.0 - self.share())
    }
}
