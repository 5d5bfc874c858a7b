/** Values of JavaScript and of `bson` as Extended JSON. Parses nothing. */

/** A value as Extended JSON. */
export function extended(value: unknown): unknown {
  if (value instanceof Date) return { $date: value.toISOString() }
  if (typeof value === 'bigint') return { $numberLong: value.toString() }
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(extended)
  if ('toHexString' in value && typeof value.toHexString === 'function') {
    const text = String(value.toHexString())
    return text.length === 24 ? { $oid: text } : { $uuid: text }
  }
  // The other types of bson.
  if ('_bsontype' in value && 'toExtendedJSON' in value && typeof value.toExtendedJSON === 'function') return value.toExtendedJSON()
  return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, extended(part)]))
}

/** Throws a TypeError for what JSON would leave out or change, such as undefined: a condition would hold for more. */
export function refuseLost(value: unknown, name: string): void {
  if (typeof value === 'number' ? Number.isFinite(value) : ['string', 'boolean', 'bigint'].includes(typeof value)) return
  if (value === null) return
  if (typeof value !== 'object') throw new TypeError(`${name} must not contain ${String(value)}`)
  if (value instanceof Date) {
    if (Number.isNaN(value.getTime())) throw new TypeError(`${name} must not contain an invalid date`)
    return
  }
  if ('_bsontype' in value || 'toHexString' in value) return
  const prototype: unknown = Object.getPrototypeOf(value)
  const isPlain = prototype === null || Object.getPrototypeOf(prototype) === null
  if (!Array.isArray(value) && !isPlain)
    throw new TypeError(`${name} may contain plain objects and values of bson, but no ${value.constructor.name}`)
  for (const part of Array.isArray(value) ? Array.from(value as unknown[]) : Object.values(value)) refuseLost(part, name)
}
