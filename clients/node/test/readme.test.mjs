// Runs every block of README.md against the real server, a real MongoDB and Redis: writes the blocks that name a file, runs the
// commands of the console blocks in their order, and compares what they print.
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { freePort } from './support/databases.mjs'
import { blocksOf, commandsOf, manifest, root, runCommands } from './support/page.mjs'
import { sampleDatabase, serverOver } from './support/samples.mjs'

const path = join(root, 'README.md')
const page = readFileSync(path, 'utf8')
const blocks = blocksOf(path)

const directory = mkdtempSync(join(tmpdir(), 'permcached-readme-'))
const background = []
let sample, server, environment
before(async () => {
  sample = await sampleDatabase()
  server = await serverOver(sample)
  mkdirSync(join(directory, 'node_modules'))
  for (const name of Object.keys(manifest.devDependencies)) {
    if (name.includes('/')) mkdirSync(join(directory, 'node_modules', name.split('/')[0]), { recursive: true })
    symlinkSync(join(root, 'node_modules', name), join(directory, 'node_modules', name))
  }
  symlinkSync(root, join(directory, 'node_modules/permcached'))
  writeFileSync(join(directory, 'package.json'), '{}')
  // Other tests run beside these.
  environment = {
    ...process.env,
    PERMCACHED_DEADLINE_MS: '20000',
    PERMCACHED_TARGET: server.target,
    PERMCACHED_TOKEN: server.token,
    MONGODB_URI: sample.uri,
  }
  for (const { name, text } of blocks) if (name !== undefined) writeFileSync(join(directory, name), text)
})
after(async () => {
  for (const child of background) child.kill('SIGKILL')
  await server?.stop()
  await sample?.close()
  rmSync(directory, { recursive: true })
})

const consoles = blocks.filter(({ kind }) => kind === 'console')
for (const { text } of consoles) {
  const names = commandsOf(text).map(({ command }) => command)
  test(names.join('; ').slice(0, 100), async () => {
    // Each block that starts a server has a port of its own.
    background.push(...(await runCommands(text, directory, { ...environment, PORT: String(await freePort()) })))
  })
}

test('every block runs: it is a file that a command names, or another file imports, or a command', () => {
  const texts = [...consoles.map(({ text }) => text), ...blocks.filter(({ name }) => name !== undefined).map(({ text }) => text)].join('\n')
  for (const { kind, name, text } of blocks) {
    if (kind === 'console') continue
    if (kind === 'sh') assert.equal(text.trim(), `npm install ${manifest.name}`)
    else assert.ok(name !== undefined && texts.includes(name.replace(/\.ts$/, '')), `${kind} ${name}`)
  }
  assert.ok(consoles.length > 12)
})

test('the page names every export', async () => {
  for (const module of ['', '/express', '/fastify', '/nest', '/mongoose', '/testing']) {
    for (const name of Object.keys(await import(`permcached${module}`))) {
      if (['FakePermissions', 'NotPermitted', 'default'].includes(name)) continue
      assert.ok(page.includes(name), `permcached${module}: ${name}`)
    }
  }
})
