// Without an icon of its own the page would ask for one that is not there.
export const metadata = { icons: { icon: "data:," } };

export default function Layout({ children }) {
  return <html lang="en"><body>{children}</body></html>;
}
