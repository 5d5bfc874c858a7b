// Runs examples/express as its README describes: every command, and the route that a newcomer adds.
import assert from 'node:assert/strict'
import { appendFileSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { freePort } from './support/databases.mjs'
import { blocksOf, commandsOf, root, runCommands, start } from './support/page.mjs'
import { repository } from './support/samples.mjs'

const example = join(repository, 'examples/express')
const blocks = blocksOf(join(example, 'README.md'))
const directory = mkdtempSync(join(tmpdir(), 'permcached-example-test-'))
let running
let env

async function stop() {
  if (running === undefined) return
  const ended = new Promise((done) => running.once('close', done))
  running.kill('SIGTERM')
  await ended
  running = undefined
}

before(async () => {
  cpSync(example, directory, { recursive: true, filter: (path) => !/node_modules|package-lock|differences/.test(path) })
  mkdirSync(join(directory, 'node_modules'))
  for (const name of ['express', 'mongoose']) symlinkSync(join(root, 'node_modules', name), join(directory, 'node_modules', name))
  symlinkSync(root, join(directory, 'node_modules/permcached'))
  // Other tests run beside these.
  env = { ...process.env, PERMCACHED_DEADLINE_MS: '20000', PORT: String(await freePort()) }
  running = await start('node start.js', directory, env)
})
after(async () => {
  await stop()
  rmSync(directory, { recursive: true })
})

for (const { text } of blocks.filter(({ kind, name }) => kind === 'console' && name === undefined)) {
  test(commandsOf(text)[0].command, () => runCommands(text, directory, env))
}

test('a route is added as the README describes', async () => {
  await stop()
  const readme = readFileSync(join(example, 'README.md'), 'utf8')
  const permission = /add\s+`(write = "owner")`/.exec(readme)[1]
  const schema = readFileSync(join(directory, 'schema.toml'), 'utf8')
  writeFileSync(
    join(directory, 'schema.toml'),
    schema.replace('[resource.folder.permissions]\n', (line) => `${line}${permission}\n`),
  )
  const { name, text } = blocks.find((block) => block.name === 'app.js')
  appendFileSync(join(directory, name), text)
  running = await start('node start.js', directory, env)
  const [restarted] = blocks.filter((block) => block.name === 'restarted')
  await runCommands(restarted.text, directory, env)
})

test('each route of the example has a guard, in one line', () => {
  const app = readFileSync(join(example, 'app.js'), 'utf8')
  const routes = app.split('\n').filter((line) => /^app\.(get|put|post|delete)/.test(line))
  assert.ok(routes.length > 6 && routes.every((line) => /requirePermission\(|unguarded\(/.test(line)), routes.join('\n'))
})
