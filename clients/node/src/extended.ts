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
