//! Capacities. They are part of the ABI: a program and a daemon with other capacities refuse each other's maps.

/// Classes, id 0 (packets of no class) included.
pub const MAX_CLASSES: usize = 64;
/// Match rules of a policy: one bit each in a `u64`.
pub const MAX_RULES: usize = 64;
/// Endpoints, id 0 ([`crate::slot::LOCAL`]) included.
pub const MAX_ENDPOINTS: usize = 4096;
/// Links, id 0 (none) and the last ([`crate::endpoint::HELD`]) included. A link id fits a byte: an endpoint names eight of them in one
/// word.
pub const MAX_LINKS: usize = 64;
/// Slots of all classes and both address families.
pub const MAX_SLOTS: usize = 1 << 19;
/// Slots of one class and family, at most.
pub const MAX_CLASS_SLOTS: usize = 4096;
/// Links on one device: a trunk has one for each VLAN.
pub const DEVICE_LINKS: usize = 16;
/// Destinations that do not take the cached gateway, per family.
pub const GATEWAY_EXCEPTIONS: usize = 8;
/// VLAN devices that replies may leave by.
pub const MAX_VLANS: usize = 256;
/// Program instances: one per device, twice while they are replaced.
pub const MAX_INSTANCES: usize = 512;
/// Bytes of the ring of events, a power of two and a multiple of the page size.
pub const EVENT_BYTES: usize = 1 << 18;
/// Links an endpoint spreads its flows over.
pub const ENDPOINT_LINKS: usize = 8;
/// Ports a `dnat` tier renames; others are preserved.
pub const ENDPOINT_PORTS: usize = 8;
/// Rows of the return table, a power of two.
pub const MAX_RETURNS: usize = 1 << 14;
/// Rows looked at for one key of the return table.
pub const RETURN_PROBES: usize = 8;
/// Pins, at most; preallocated.
pub const MAX_PINS: usize = 1 << 18;
/// Openers that are remembered, a power of two: at 50,000 new flows a second, four of five are still there after one.
pub const MAX_REPEATS: usize = 1 << 18;
/// Rows of a class's overflow, per family; a power of two.
pub const OVERFLOW_ROWS: usize = 64;
/// Reasons, a power of two.
pub const MAX_REASONS: usize = 64;
/// Prefixes of one family and direction that are matched inline.
pub const INLINE_PREFIXES: usize = 16;
/// Port ranges that are matched inline.
pub const INLINE_PORTS: usize = 16;
/// Prefixes of one family and direction in a policy that is matched through maps.
pub const MAX_PREFIXES: usize = 16384;

const _: () = assert!(MAX_CLASSES.is_power_of_two() && MAX_LINKS.is_power_of_two() && MAX_ENDPOINTS.is_power_of_two());
const _: () = assert!(MAX_RETURNS.is_power_of_two() && MAX_REASONS.is_power_of_two());
const _: () = assert!(MAX_REPEATS.is_power_of_two() && OVERFLOW_ROWS.is_power_of_two());
const _: () = assert!(MAX_SLOTS >= MAX_CLASSES * 2 * MAX_CLASS_SLOTS);
