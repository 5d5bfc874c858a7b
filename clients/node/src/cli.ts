#!/usr/bin/env node
/** The command line: `npx permcached report FILE`. */

import { createReadStream, readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { Reporter, reportText, type Expected } from './report.js'

const USAGE = `Usage: npx permcached report FILE [--expected FILE] [--json]

Groups the differences of a shadow run by permission, direction and rule, worst first.

  --expected FILE  A JSON array of differences to leave out, each with some of type, permission,
                   old, ours, reason and grantedBy: [{"permission": "read", "reason": "EXCLUDED"}]
  --json           Print the report as JSON

Exit code: 0 no differences but expected ones, 1 differences, 2 a wrong command or file`

class Wrong extends Error {}

async function main(args: string[]): Promise<number> {
  const { values, positionals } = parsed(args)
  if (values.help === true) {
    console.log(USAGE)
    return 0
  }
  const [command, file, ...rest] = positionals
  if (command !== 'report' || file === undefined || rest.length > 0) throw new Wrong(USAGE)
  const reporter = new Reporter(values.expected === undefined ? [] : expectedIn(values.expected))
  for await (const line of createInterface({ input: createReadStream(file), crlfDelay: Infinity })) reporter.add(line)
  const report = reporter.report()
  console.log(values.json === true ? JSON.stringify(report, undefined, 2) : reportText(report))
  return report.groups.length === 0 ? 0 : 1
}

function parsed(args: string[]) {
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: { expected: { type: 'string' }, json: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
    })
  } catch (error) {
    throw new Wrong(`${(error as Error).message}\n\n${USAGE}`)
  }
}

function expectedIn(path: string): Expected[] {
  const value: unknown = JSON.parse(readFileSync(path, 'utf8'))
  // An empty pattern would match every difference.
  const isPattern = (each: unknown) => typeof each === 'object' && each !== null && Object.keys(each).length > 0
  if (!Array.isArray(value) || !value.every(isPattern)) throw new Wrong(`${path} is no JSON array of differences`)
  const keys = new Set(['type', 'permission', 'old', 'ours', 'reason', 'grantedBy'])
  const unknown = value.flatMap((each: object) => Object.keys(each)).find((key) => !keys.has(key))
  if (unknown !== undefined) throw new Wrong(`${path}: there is no field ${unknown}: the fields are ${[...keys].join(', ')}`)
  return value as Expected[]
}

main(process.argv.slice(2)).then(
  (code) => void (process.exitCode = code),
  (error: Error) => {
    console.error(error instanceof Wrong ? error.message : `permcached: ${error.message}`)
    process.exitCode = 2
  },
)
