# Regular health monitoring
async def monitor_memory_health():
    health = await provider.health_check()

    if health.get('healthy'):
        print(f" Memory provider healthy: {health.get('message')}")

        # Log performance metrics
        metrics = health.get('metrics', {})
        print(f" - Connections: {metrics.get('active_connections', 'N/A')}")
        print(f" - Memory usage: {metrics.get('memory_usage', 'N/A')}")
        print(f" - Response time: {metrics.get('avg_response_time', 'N/A')}ms")
    else:
        print(f" Memory provider unhealthy: {health.get('error')}")
        # Alert operations team
        await send_alert(f"Memory provider failure: {health.get('error')}")

# Schedule regular health checks
import asyncio
asyncio.create_task(monitor_memory_health())
