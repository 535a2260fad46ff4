/** Workers of scripts that lie elsewhere than the page. */

/**
 * A worker of a script that lies on another host than the page, such as a CDN: browsers start none from
 * there, but one of the page's own may import it.
 */
export function foreignScript(name: string): Worker | undefined {
  // Not `new URL`: bundlers take that for a file to be copied.
  const script = import.meta.url.replace(/[^/]*$/, name);
  if (!/^https?:/.test(script) || new URL(script).origin === globalThis.location?.origin) return undefined;
  const shim = URL.createObjectURL(new Blob([`import ${JSON.stringify(script)};`], { type: "text/javascript" }));
  return new Worker(shim, { type: "module", name: `bitpane ${name}` });
}
