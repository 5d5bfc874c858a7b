/**
 * The messages of checks, encoded and decoded by hand: an application makes many checks, and the generated code costs several
 * times as much. `codec.test.mjs` compares both. All other messages use the generated code.
 *
 * Reads what it does not know as the generated code does: it skips it.
 */

import { fromBinary, toBinary, create } from '@bufbuild/protobuf'
import { reasonOf, tierOf, type Answer } from './answer.js'
import type { Consistency } from './consistency.js'
import { ConsistencySchema } from './gen/permcached/v1/core_pb.js'
import { StatusSchema, type Status } from './gen/google/rpc/status_pb.js'
import type { Asked } from './question.js'

/** What an answer depends on, so that it can be kept. */
export interface DependsOn {
  /** Names of what the answer depends on: at least one. */
  readonly hashes: readonly number[]
  /** The answer shows every change up to this moment. */
  readonly moment: bigint
  /** What an answer must have in common with a stream of changes. */
  readonly domain: bigint
  /** How long time alone leaves the answer as it is. */
  readonly validForMs?: number
}

/** What became of one question. Undefined if the server sent neither. */
export type Outcome = { answer: Answer; dependsOn?: DependsOn; error?: undefined } | { answer?: undefined; error: Status } | undefined

/** The kinds of fields: how their length is known. */
const VARINT = 0
const FIXED_64 = 1
const BYTES = 2
const FIXED_32 = 5

const tag = (field: number, kind: number) => (field << 3) | kind

/** The bytes that a length takes. */
function lengthSize(length: number): number {
  return length < 0x80 ? 1 : length < 0x4000 ? 2 : length < 0x200000 ? 3 : 4
}

/** The bytes of a text field, its tag and length included. An empty text is not sent. */
function textSize(length: number): number {
  return length === 0 ? 0 : 1 + lengthSize(length) + length
}

/** Writes into a buffer that grows. */
class Writer {
  #buffer = Buffer.allocUnsafe(1_024)
  #length = 0

  /** Makes sure that this many bytes fit. */
  reserve(bytes: number): void {
    if (this.#length + bytes <= this.#buffer.length) return
    const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#length + bytes))
    this.#buffer.copy(larger, 0, 0, this.#length)
    this.#buffer = larger
  }

  byte(value: number): void {
    this.#buffer[this.#length++] = value
  }

  length(value: number): void {
    while (value > 0x7f) {
      this.#buffer[this.#length++] = (value & 0x7f) | 0x80
      value >>>= 7
    }
    this.#buffer[this.#length++] = value
  }

  /** A text field whose text has this many bytes. */
  text(field: number, text: string, bytes: number): void {
    if (bytes === 0) return
    this.byte(tag(field, BYTES))
    this.length(bytes)
    if (bytes === text.length && bytes < 48) {
      // Only ASCII has as many bytes as units.
      for (let index = 0; index < bytes; index += 1) this.#buffer[this.#length++] = text.charCodeAt(index)
    } else {
      this.#length += this.#buffer.write(text, this.#length, 'utf8')
    }
  }

  bytes(value: Uint8Array): void {
    this.#buffer.set(value, this.#length)
    this.#length += value.length
  }

  take(): Buffer {
    return this.#buffer.subarray(0, this.#length)
  }
}

/** The bytes of a text in UTF-8. */
const byteLength = Buffer.byteLength

/** Writes the fields of a question. With `field`, as a message in that field. */
function writeQuestion(writer: Writer, question: Asked, field: number | undefined): void {
  const { subjectType, subjectId, permission, resourceType, resourceId } = question
  const typeBytes = byteLength(subjectType)
  const idBytes = byteLength(subjectId)
  const permissionBytes = byteLength(permission)
  const resourceTypeBytes = byteLength(resourceType)
  const resourceIdBytes = byteLength(resourceId)
  const subject = question.anonymous ? 2 : textSize(typeBytes) + textSize(idBytes)
  const resource = textSize(resourceTypeBytes) + textSize(resourceIdBytes)
  const size = 1 + lengthSize(subject) + subject + textSize(permissionBytes) + 1 + lengthSize(resource) + resource
  writer.reserve(size + 8)
  if (field !== undefined) {
    writer.byte(tag(field, BYTES))
    writer.length(size)
  }
  writer.byte(tag(1, BYTES))
  writer.length(subject)
  if (question.anonymous) {
    writer.byte(tag(3, VARINT))
    writer.byte(1)
  } else {
    writer.text(1, subjectType, typeBytes)
    writer.text(2, subjectId, idBytes)
  }
  writer.text(2, permission, permissionBytes)
  writer.byte(tag(3, BYTES))
  writer.length(resource)
  writer.text(1, resourceType, resourceTypeBytes)
  writer.text(2, resourceId, resourceIdBytes)
}

function writeConsistency(writer: Writer, { message }: Consistency, field: number): void {
  if (message === undefined) return
  const bytes = toBinary(ConsistencySchema, create(ConsistencySchema, message))
  writer.reserve(bytes.length + 6)
  writer.byte(tag(field, BYTES))
  writer.length(bytes.length)
  writer.bytes(bytes)
}

function writeFlag(writer: Writer, field: number, value: boolean): void {
  if (!value) return
  writer.reserve(2)
  writer.byte(tag(field, VARINT))
  writer.byte(1)
}

/** A CheckRequest. */
export function encodeCheck(question: Asked, consistency: Consistency, dependencies = false): Buffer {
  const writer = new Writer()
  writeQuestion(writer, question, undefined)
  writeConsistency(writer, consistency, 4)
  writeFlag(writer, 5, dependencies)
  return writer.take()
}

/** A BatchCheckRequest. */
export function encodeBatch(questions: readonly Asked[], consistency: Consistency, dependencies = false): Buffer {
  const writer = new Writer()
  writer.reserve(questions.length * 96)
  for (const question of questions) writeQuestion(writer, question, 1)
  writeConsistency(writer, consistency, 2)
  writeFlag(writer, 3, dependencies)
  return writer.take()
}

/** Reads a message. Throws a RangeError if its bytes end too early, or make no sense. */
class Reader {
  position: number

  constructor(
    readonly buffer: Buffer,
    start: number,
    readonly end: number,
  ) {
    this.position = start
  }

  /** A number. Numbers beyond 2^53 lose digits, and no field of an answer has any. */
  varint(): number {
    let value = 0
    let factor = 1
    for (let count = 0; count < 10; count += 1) {
      if (this.position >= this.end) throw new RangeError('a message ends within a number')
      const byte = this.buffer[this.position++] as number
      value += (byte & 0x7f) * factor
      if (byte < 0x80) return value
      factor *= 128
    }
    throw new RangeError('a number of a message is too long')
  }

  /** The end of a field that has a length, which begins at `position`. */
  extent(): number {
    const length = this.varint()
    if (length > this.end - this.position) throw new RangeError('a field is longer than its message')
    return this.position + length
  }

  message(): Reader {
    const end = this.extent()
    const reader = new Reader(this.buffer, this.position, end)
    this.position = end
    return reader
  }

  /** Where eight bytes begin. */
  eight(): number {
    const place = this.position
    if (this.end - place < 8) throw new RangeError('a message ends within a number')
    this.position += 8
    return place
  }

  skip(kind: number): void {
    if (kind === VARINT) this.varint()
    else if (kind === BYTES) this.position = this.extent()
    else if (kind === FIXED_64 || kind === FIXED_32) {
      this.position += kind === FIXED_64 ? 8 : 4
      if (this.position > this.end) throw new RangeError('a message ends within a number')
    } else throw new RangeError('a field has an unknown kind')
  }
}

/** Texts that repeat in one response: most answers have the same token, and few relations grant. */
class Texts {
  #start = 0
  #end = -1
  #text = ''

  read(reader: Reader): string {
    const end = reader.extent()
    const { buffer, position } = reader
    reader.position = end
    if (end - position === this.#end - this.#start && buffer.compare(buffer, this.#start, this.#end, position, end) === 0) return this.#text
    this.#start = position
    this.#end = end
    this.#text = buffer.toString('utf8', position, end)
    return this.#text
  }
}

interface Repeated {
  readonly tokens: Texts
  readonly grants: Texts
}

/** A Duration or a Timestamp: its seconds and nanoseconds. */
function readTime(reader: Reader): { seconds: number; nanos: number } {
  let seconds = 0
  let nanos = 0
  while (reader.position < reader.end) {
    const key = reader.varint()
    if (key === tag(1, VARINT)) seconds = reader.varint()
    else if (key === tag(2, VARINT)) nanos = reader.varint()
    else reader.skip(key & 7)
  }
  return { seconds, nanos }
}

/** A name as a number that JavaScript can hold: 53 of its 64 bits. Names that are the same afterwards count as one. */
export function hashOf(name: bigint): number {
  return Number(name & 0x1f_ffff_ffff_ffffn)
}

function readHash({ buffer }: Reader, place: number): number {
  return (buffer.readUInt32LE(place + 4) & 0x1f_ffff) * 2 ** 32 + buffer.readUInt32LE(place)
}

function readDependsOn(reader: Reader): DependsOn {
  const hashes: number[] = []
  let moment = 0n
  let domain = 0n
  let validForMs: number | undefined
  while (reader.position < reader.end) {
    const key = reader.varint()
    switch (key) {
      case tag(1, BYTES): {
        const inner = reader.message()
        while (inner.position < inner.end) hashes.push(readHash(reader, inner.eight()))
        break
      }
      case tag(1, FIXED_64):
        hashes.push(readHash(reader, reader.eight()))
        break
      case tag(2, FIXED_64):
        moment = reader.buffer.readBigUInt64LE(reader.eight())
        break
      case tag(3, FIXED_64):
        domain = reader.buffer.readBigUInt64LE(reader.eight())
        break
      case tag(4, BYTES): {
        const { seconds, nanos } = readTime(reader.message())
        validForMs = seconds * 1000 + Math.floor(nanos / 1e6)
        break
      }
      default:
        reader.skip(key & 7)
    }
  }
  return { hashes, moment, domain, ...(validForMs === undefined ? {} : { validForMs }) }
}

function readAnswer(reader: Reader, { tokens, grants }: Repeated): { answer: Answer; dependsOn?: DependsOn } {
  let allowed = false
  let reason = 0
  let grantedBy = ''
  let tier = 0
  let asOf = ''
  let ageMs = 0
  let validUntil: Date | undefined
  let stale = false
  let dependsOn: DependsOn | undefined
  while (reader.position < reader.end) {
    const key = reader.varint()
    switch (key) {
      case tag(1, VARINT):
        allowed = reader.varint() !== 0
        break
      case tag(2, VARINT):
        reason = reader.varint()
        break
      case tag(3, BYTES):
        grantedBy = grants.read(reader)
        break
      case tag(4, VARINT):
        tier = reader.varint()
        break
      case tag(5, BYTES):
        asOf = tokens.read(reader)
        break
      case tag(6, BYTES): {
        const { seconds, nanos } = readTime(reader.message())
        ageMs = seconds * 1000 + Math.ceil(nanos / 1e6)
        break
      }
      case tag(7, BYTES): {
        const { seconds, nanos } = readTime(reader.message())
        validUntil = new Date(seconds * 1000 + Math.floor(nanos / 1e6))
        break
      }
      case tag(8, VARINT):
        stale = reader.varint() !== 0
        break
      case tag(9, BYTES):
        dependsOn = readDependsOn(reader.message())
        break
      default:
        reader.skip(key & 7)
    }
  }
  const answer: { -readonly [key in keyof Answer]: Answer[key] } = { allowed, tier: tierOf(tier), asOf, ageMs, stale }
  if (!allowed) answer.reason = reasonOf(reason) ?? 'UNKNOWN'
  if (grantedBy !== '') answer.grantedBy = grantedBy
  if (validUntil !== undefined) answer.validUntil = validUntil
  return dependsOn === undefined ? { answer } : { answer, dependsOn }
}

function readOutcome(reader: Reader, repeated: Repeated): Outcome {
  let outcome: Outcome
  while (reader.position < reader.end) {
    const key = reader.varint()
    if (key === tag(1, BYTES)) {
      outcome = readAnswer(reader.message(), repeated)
    } else if (key === tag(2, BYTES)) {
      const { buffer, position, end } = reader.message()
      outcome = { error: fromBinary(StatusSchema, new Uint8Array(buffer.buffer, buffer.byteOffset + position, end - position)) }
    } else {
      reader.skip(key & 7)
    }
  }
  return outcome
}

const repeatedTexts = (): Repeated => ({ tokens: new Texts(), grants: new Texts() })

/** The outcome of a CheckResponse. */
export function decodeCheck(bytes: Buffer): Outcome {
  // An answer is the first field, as in a result of a batch, and there is no second one.
  const outcome = readOutcome(new Reader(bytes, 0, bytes.length), repeatedTexts())
  return outcome?.answer === undefined ? undefined : outcome
}

/** The outcomes of a BatchCheckResponse. */
export function decodeBatch(bytes: Buffer): Outcome[] {
  const reader = new Reader(bytes, 0, bytes.length)
  const repeated = repeatedTexts()
  const outcomes: Outcome[] = []
  while (reader.position < reader.end) {
    const key = reader.varint()
    if (key === tag(1, BYTES)) outcomes.push(readOutcome(reader.message(), repeated))
    else reader.skip(key & 7)
  }
  return outcomes
}
