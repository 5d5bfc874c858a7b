// The file of differences, and its report.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { differencesTo } from 'permcached/express'

const scratch = mkdtempSync(join(tmpdir(), 'permcached-shadow-'))
after(() => rmSync(scratch, { recursive: true }))
const cli = fileURLToPath(new URL('../dist/cli.js', import.meta.url))

function report(...args) {
  return new Promise((done) =>
    execFile(process.execPath, [cli, ...args], (error, stdout, stderr) => done({ code: error?.code ?? 0, stdout, stderr })),
  )
}

const at = (second) => `2030-01-01T00:00:0${second}.000Z`
const denied = (second, more = {}) => ({
  type: 'file',
  permission: 'read',
  old: true,
  ours: false,
  reason: 'EXCLUDED',
  at: at(second),
  ...more,
})
const allowed = (second, more = {}) => ({
  type: 'file',
  permission: 'read',
  old: false,
  ours: true,
  grantedBy: 'folder#guest',
  at: at(second),
  ...more,
})

test('a file of differences has one line of JSON for each, and only its owner can read it', async () => {
  const path = join(scratch, 'differences.jsonl')
  const sink = differencesTo(path)
  sink(denied(1))
  sink(allowed(2))
  await sink.close()
  assert.deepEqual(
    readFileSync(path, 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line)),
    [denied(1), allowed(2)],
  )
  assert.equal(statSync(path).mode & 0o077, 0)
  assert.equal(sink.dropped, 0)
})

test('a file of differences does not grow beyond its limit', async () => {
  const path = join(scratch, 'limited.jsonl')
  const sink = differencesTo(path, { maxBytes: 1_000 })
  for (let count = 0; count < 100; count += 1) sink(denied(1))
  await sink.close()
  assert.ok(statSync(path).size <= 1_000)
  assert.equal(sink.dropped, 100 - readFileSync(path, 'utf8').trim().split('\n').length)
})

test('a file that cannot be written costs only the differences', async () => {
  const { error } = console
  console.error = () => {}
  const sink = differencesTo(join(scratch, 'missing', 'file'))
  sink(denied(1))
  await new Promise((done) => setTimeout(done, 100))
  sink(denied(1))
  await sink.close()
  console.error = error
  assert.equal(sink.dropped, 1)
})

test('the report groups by permission, direction and rule, worst first, with three examples', async () => {
  const path = join(scratch, 'report.jsonl')
  const lines = [
    ...[1, 2, 3, 4, 5].map((second) => denied(second, { subjects: [second < 3 ? 'user:bob' : ':bob'], resource: `file:${second}` })),
    denied(1, { reason: 'NO_GRANT' }),
    denied(1, { reason: 'NO_GRANT' }),
    allowed(3, { subjects: ['link:(hidden)'], resource: 'file:it is' }),
    denied(4, { permission: 'write' }),
  ]
  writeFileSync(path, `${lines.map((line) => JSON.stringify(line)).join('\n')}\nno JSON\n{"type":"file"}\n`)
  const { code, stdout } = await report('report', path)
  assert.equal(code, 1)
  assert.equal(
    stdout,
    `read file: permcached allows by folder#guest, the old check denies
    once, from 2030-01-01T00:00:03.000Z to 2030-01-01T00:00:03.000Z
    permcached explain link:ID read 'file:it is'

read file: permcached denies (EXCLUDED), the old check allows
    5 times, from 2030-01-01T00:00:01.000Z to 2030-01-01T00:00:05.000Z
    permcached explain user:bob read file:1
    permcached explain user:bob read file:2
    permcached explain TYPE:bob read file:3

read file: permcached denies (NO_GRANT), the old check allows
    2 times, from 2030-01-01T00:00:01.000Z to 2030-01-01T00:00:01.000Z
    no example: the shadow was run without the option ids

write file: permcached denies (EXCLUDED), the old check allows
    once, from 2030-01-01T00:00:04.000Z to 2030-01-01T00:00:04.000Z
    no example: the shadow was run without the option ids

9 times different
2 lines are no differences
`,
  )
})

test('expected differences are left out of the report, and of its exit code', async () => {
  const path = join(scratch, 'expected.jsonl')
  const expected = join(scratch, 'expected.json')
  writeFileSync(path, `${JSON.stringify(denied(1))}\n${JSON.stringify(allowed(2))}\n`)
  writeFileSync(expected, JSON.stringify([{ reason: 'EXCLUDED', ours: false }]))
  const some = await report('report', path, '--expected', expected)
  assert.equal(some.code, 1)
  assert.match(some.stdout, /^read file: permcached allows/)
  assert.match(some.stdout, /once different, and once as expected/)
  writeFileSync(expected, JSON.stringify([{ reason: 'EXCLUDED' }, { grantedBy: 'folder#guest' }]))
  const all = await report('report', path, '--expected', expected, '--json')
  assert.equal(all.code, 0)
  const { groups, expected: left } = JSON.parse(all.stdout)
  assert.deepEqual([groups.length, left.length], [0, 2])
  // A field that does not exist, or none at all, would leave out everything.
  for (const wrong of ['[{}]', '[{"grantedby": "x"}]', '{}', 'no JSON']) {
    writeFileSync(expected, wrong)
    assert.equal((await report('report', path, '--expected', expected)).code, 2, wrong)
  }
})

test('a wrong command, or a file that does not exist, is exit code 2', async () => {
  for (const args of [
    [],
    ['report'],
    ['other', 'x'],
    ['report', join(scratch, 'nothing')],
    ['report', 'a', 'b'],
    ['report', '--wrong', 'a'],
  ]) {
    assert.equal((await report(...args)).code, 2, args.join(' '))
  }
  const { code, stdout } = await report('--help')
  assert.equal(code, 0)
  assert.match(stdout, /npx permcached report FILE/)
})
