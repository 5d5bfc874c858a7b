// Builds dist: messages from the proto files, CommonJS by the compiler, and a module for each entry that passes on the names of the
// CommonJS file. Both module systems therefore share one copy of the package: its errors, classes and connections are the same.
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const require = createRequire(import.meta.url)
const run = (name, ...args) => execFileSync(process.execPath, [require.resolve(name), ...args], { cwd: root, stdio: 'inherit' })

rmSync(join(root, 'dist'), { recursive: true, force: true })
rmSync(join(root, 'src/gen'), { recursive: true, force: true })
execFileSync(join(root, 'node_modules/.bin/buf'), ['generate'], { cwd: root, stdio: 'inherit' })
run('typescript/bin/tsc', '-p', '.')

const entries = Object.values(require('../package.json').exports)
  .map((entry) => entry.require?.default)
  .filter((path) => path !== undefined)
for (const entry of entries) {
  const path = join(root, entry)
  const base = entry.split('/').at(-1).replace(/\.js$/, '')
  const names = Object.keys(require(path))
    .filter((name) => name !== '__esModule')
    .sort()
  const target = path.replace(/\.js$/, '')
  writeFileSync(`${target}.mjs`, `import all from './${base}.js'\nexport const { ${names.join(', ')} } = all\n`)
  writeFileSync(`${target}.d.mts`, `export * from './${base}.js'\n`)
}
if (!existsSync(join(root, 'dist/index.mjs'))) throw new Error(`no entries were built: ${readdirSync(join(root, 'dist'))}`)
