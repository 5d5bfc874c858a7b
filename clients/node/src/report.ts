/**
 * The report of a shadow run: differences by permission, direction and rule, worst first.
 *
 * Asks no server.
 */

import type { Difference } from './shadow.js'

/** A group of differences to leave out: those that have each of these values. */
export type Expected = Partial<Pick<Difference, 'type' | 'permission' | 'old' | 'ours' | 'reason' | 'grantedBy'>>

/** Differences with the same permission, direction and rule. */
export interface Group {
  readonly type: string
  readonly permission: string
  readonly old: boolean
  readonly ours: boolean
  /** The relation by which permcached allows, or the reason for which it denies. */
  readonly rule: string
  count: number
  first: string
  last: string
  /** Commands that explain the first differences, or what is missing for one. */
  readonly examples: string[]
}

/** What a file of differences has. */
export interface Report {
  /** The differences that are not expected: first those by which permcached allows more, then the most frequent. */
  readonly groups: readonly Group[]
  /** The differences that are expected. */
  readonly expected: readonly Group[]
  /** Lines that are no differences. */
  readonly malformed: number
}

const EXAMPLES_MAX = 3
const EXPECTED_KEYS = ['type', 'permission', 'old', 'ours', 'reason', 'grantedBy'] as const

/** Collects lines into a report. */
export class Reporter {
  readonly #groups = new Map<string, { group: Group; isExpected: boolean }>()
  readonly #expected: readonly Expected[]
  #malformed = 0

  constructor(expected: readonly Expected[] = []) {
    this.#expected = expected
  }

  /** Adds a line of the file. */
  add(line: string): void {
    if (line.trim() === '') return
    const difference = parsed(line)
    if (difference === undefined) {
      this.#malformed += 1
      return
    }
    const { type, permission, old, ours, at } = difference
    const rule = (ours ? difference.grantedBy : difference.reason) ?? ''
    const isExpected = this.#expected.some((each) => EXPECTED_KEYS.every((key) => each[key] === undefined || each[key] === difference[key]))
    const key = JSON.stringify([type, permission, old, ours, rule, isExpected])
    let entry = this.#groups.get(key)
    if (entry === undefined) {
      entry = { isExpected, group: { type, permission, old, ours, rule, count: 0, first: at, last: at, examples: [] } }
      this.#groups.set(key, entry)
    }
    const { group } = entry
    group.count += 1
    if (at < group.first) group.first = at
    if (at > group.last) group.last = at
    const example = command(difference)
    if (example !== undefined && group.examples.length < EXAMPLES_MAX && !group.examples.includes(example)) group.examples.push(example)
  }

  /** Everything that was added. */
  report(): Report {
    const all = [...this.#groups.values()]
    // An access that is new is worse than one that is lost.
    const order = (one: Group, other: Group) =>
      Number(other.ours) - Number(one.ours) || other.count - one.count || name(one).localeCompare(name(other))
    const groups = (isExpected: boolean) =>
      all
        .filter((entry) => entry.isExpected === isExpected)
        .map(({ group }) => group)
        .sort(order)
    return { groups: groups(false), expected: groups(true), malformed: this.#malformed }
  }
}

function parsed(line: string): Difference | undefined {
  try {
    const value = JSON.parse(line) as Partial<Difference> | null
    const isDifference =
      typeof value?.type === 'string' &&
      typeof value.permission === 'string' &&
      typeof value.old === 'boolean' &&
      typeof value.ours === 'boolean' &&
      typeof value.at === 'string' &&
      value.old !== value.ours
    return isDifference ? (value as Difference) : undefined
  } catch {
    return undefined
  }
}

/** A text that a shell takes as one word. */
function quoted(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`
}

function command({ subjects, resource, permission }: Difference): string | undefined {
  const subject = Array.isArray(subjects) ? subjects.find((each) => typeof each === 'string') : undefined
  if (subject === undefined || typeof resource !== 'string') return undefined
  // What the difference does not have is for the reader to fill in.
  const complete = subject.replace(/^:/, 'TYPE:').replace(/:\(hidden\)$/, ':ID')
  return `permcached explain ${quoted(complete)} ${quoted(permission)} ${quoted(resource)}`
}

function name({ permission, type, rule }: Group): string {
  return `${permission} ${type} ${rule}`
}

/** A report as text. */
export function reportText({ groups, expected, malformed }: Report): string {
  const count = (all: readonly Group[]) => all.reduce((sum, group) => sum + group.count, 0)
  const lines: string[] = []
  for (const group of groups) {
    const rule = group.rule === '' ? '' : group.ours ? ` by ${group.rule}` : ` (${group.rule})`
    const direction = group.ours ? `permcached allows${rule}, the old check denies` : `permcached denies${rule}, the old check allows`
    lines.push(`${group.permission} ${group.type}: ${direction}`, `    ${times(group.count)}, from ${group.first} to ${group.last}`)
    lines.push(...group.examples.map((example) => `    ${example}`))
    if (group.examples.length === 0) lines.push('    no example: the shadow was run without the option ids')
    lines.push('')
  }
  lines.push(`${times(count(groups))} different${expected.length > 0 ? `, and ${times(count(expected))} as expected` : ''}`)
  if (malformed > 0) lines.push(`${malformed} lines are no differences`)
  return lines.join('\n')
}

function times(count: number): string {
  return count === 1 ? 'once' : `${count} times`
}
