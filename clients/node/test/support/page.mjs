// The blocks of a page, and their commands, run as a reader runs them.
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { until } from './databases.mjs'

export const root = fileURLToPath(new URL('../..', import.meta.url))
export const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))

/** The fenced blocks of a page: their kind, the name that follows it, and the text. */
export function blocksOf(path) {
  return [...readFileSync(path, 'utf8').matchAll(/^```(\w+)(?: (\S+))?\n(.*?)^```$/gms)].map(([, kind, name, text]) => ({
    kind,
    name,
    text,
  }))
}

/** The commands of a console block, and what each prints. */
export function commandsOf(text) {
  const found = []
  for (const line of text.trimEnd().split('\n')) {
    if (line.startsWith('$ ')) found.push({ command: line.slice(2), output: [] })
    else found.at(-1).output.push(line)
  }
  return found.map(({ command, output }) => ({ command, output: output.join('\n').trim() }))
}

/** The command with this checkout's own programs in place of those that npm would fetch. */
function local(command) {
  return command
    .replace(/^npx permcached /, `node ${join(root, manifest.bin['permcached-node'])} `)
    .replace(/^npx tsc /, `node ${join(root, 'node_modules/typescript/bin/tsc')} --ignoreConfig `)
    .replace(/^node /, `${process.execPath} `)
}

function run(command, directory, env) {
  return new Promise((done) => {
    execFile('bash', ['-c', command], { cwd: directory, env, timeout: 60_000 }, (error, stdout, stderr) =>
      done({ error, output: stdout.trim(), stderr }),
    )
  })
}

/** Starts a program that listens on `env.PORT`. */
export async function start(command, directory, env) {
  const child = spawn('bash', ['-c', `exec ${command}`], { cwd: directory, env, stdio: ['ignore', 'pipe', 'pipe'] })
  const output = []
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => output.push(data))
  const answers = () =>
    fetch(`http://127.0.0.1:${env.PORT}/`).then(
      () => true,
      () => false,
    )
  await until(`${command} to listen`, async () => {
    assert.equal(child.exitCode, null, `${command} ended:\n${Buffer.concat(output)}`)
    return answers()
  })
  return child
}

/** Whether a text is as the page has it. `…` stands for anything in a line. */
function assertOutput(found, expected, what) {
  if (!expected.includes('…')) return assert.equal(found, expected, what)
  const pattern = expected
    .split('…')
    .map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
    .join('.*')
  assert.match(found, new RegExp(`^${pattern}$`), what)
}

/** Runs the commands of a console block. Returns the programs that it has started. */
export async function runCommands(text, directory, env) {
  const started = []
  for (const { command, output } of commandsOf(text)) {
    const own = local(command.replaceAll('localhost:3000', `127.0.0.1:${env.PORT}`))
    if (own.endsWith(' &')) {
      started.push(await start(own.slice(0, -2), directory, env))
      continue
    }
    // What is written after a response takes a moment.
    const isReport = command.includes('permcached report')
    const lines = output.split('\n').filter((line) => line.includes('permcached explain')).length
    const differences = join(directory, command.split(' ').at(-1))
    if (isReport)
      await until('the differences', () => existsSync(differences) && readFileSync(differences, 'utf8').split('\n').length > lines)
    const { error, output: found, stderr } = await run(own, directory, env)
    assert.ok(error === null || (isReport && error.code === 1), `${command}: ${error?.message}\n${stderr}`)
    if (output !== '') assertOutput(found, output, command)
  }
  return started
}
