/** A container that scrolls wide content sideways; it takes the keyboard focus while it can scroll. */

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

export function Scroll({ label, children }: { label: string; children: ComponentChildren }) {
  const place = useRef<HTMLDivElement>(null);
  const [isWide, setWide] = useState(false);
  useEffect(() => {
    const element = place.current;
    if (!element) return undefined;
    const measure = () => setWide(element.scrollWidth > element.clientWidth);
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    for (const child of element.children) observer.observe(child);
    return () => observer.disconnect();
  }, []);
  const reached = isWide ? ({ tabIndex: 0, role: "region", "aria-label": label } as const) : {};
  return (
    <div class="scroll" ref={place} {...reached}>
      {children}
    </div>
  );
}
